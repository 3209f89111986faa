-- The role may read everything, also what is made later. Before PostgreSQL 14 that is schema by schema.
DO $pgmoor$
DECLARE
    name text := current_setting('pgmoor.role');
    schema text;
BEGIN
    IF current_setting('server_version_num')::int >= 140000 THEN
        EXECUTE format('GRANT pg_read_all_data TO %I', name);
        RETURN;
    END IF;
    FOR schema IN SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', schema, name);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', schema, name);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', schema, name);
    END LOOP;
END $pgmoor$;
