-- The role may read these schemas: what is there, and what whoever runs this makes there later.
DO $pgmoor$
DECLARE
    name text := current_setting('pgmoor.role');
    schema text;
BEGIN
    FOREACH schema IN ARRAY string_to_array(current_setting('pgmoor.schemas'), chr(31)) LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', schema, name);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', schema, name);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', schema, name);
    END LOOP;
END $pgmoor$;
