CREATE TABLE t (id int PRIMARY KEY, word text NOT NULL, CHECK (id < 100));
INSERT INTO t VALUES (1, 'one'), (2, 'two');
INSERT INTO t VALUES (1, 'again');
INSERT INTO t VALUES (3, NULL);
INSERT INTO t VALUES (200, 'much');
SELECT nothing FROM t;
SELEC 1;
SELECT 1/0;
SELECT * FROM missing;
SELECT 'x'::int;
DROP TABLE missing;
SELECT count(*) FROM t;
CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no %', 'way' USING DETAIL = 'a detail; with a semicolon', HINT = 'a hint', ERRCODE = 'P0042';
END $$;
SELECT fails();
DO $$ BEGIN PERFORM fails(); END $$;
UPDATE t SET word = 'deux' WHERE id = 2 RETURNING id, word;
DELETE FROM t WHERE id = 7;
SELECT "unterminated' FROM t;
