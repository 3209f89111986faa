DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second' USING DETAIL = 'more', HINT = 'do'; END $$;
DO $$ BEGIN RAISE INFO 'info'; RAISE DEBUG 'not shown'; RAISE LOG 'not shown either'; END $$;
SET client_min_messages = debug1;
DO $$ BEGIN RAISE DEBUG 'shown now'; END $$;
RESET client_min_messages;
CREATE TABLE IF NOT EXISTS n (id serial);
CREATE TABLE IF NOT EXISTS n (id serial);
DROP TABLE IF EXISTS missing;
TRUNCATE n;
CREATE FUNCTION speaks() RETURNS text LANGUAGE plpgsql AS $f$
DECLARE word text := 'value';
BEGIN
    RAISE NOTICE 'in speaks: %', word;
    RETURN word;
END $f$;
SELECT speaks();
ROLLBACK;
SELECT speaks(), speaks();
