-- What everybody may in this database is taken from PUBLIC: no right can be kept from one role alone. Who relies on it
-- loses it, but for the roles that are to keep it. It concerns temporary tables, creating in schemas, writing to tables and
-- sequences that were granted to PUBLIC, and large objects.
DO $pgmoor$
DECLARE
    name text := current_setting('pgmoor.role');
    keepers text[] := string_to_array(nullif(current_setting('pgmoor.keep_for'), ''), chr(31));
    keeper text;
    object record;
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    FOR object IN
        -- What PUBLIC has: the default where there is no list.
        SELECT 'DATABASE' AS kind, format('%I', d.datname) AS identity, a.privilege_type AS privilege
        FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type IN ('TEMPORARY', 'CREATE')
        UNION ALL
        SELECT 'SCHEMA', format('%I', n.nspname), a.privilege_type
        FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
        WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'
        UNION ALL
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%I.%I', n.nspname, c.relname), a.privilege_type
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
            pg_catalog.aclexplode(c.relacl) AS a
        WHERE a.grantee = 0 AND c.oid <> 'pg_catalog.pg_settings'::regclass
        AND (c.relkind IN ('r', 'p', 'v', 'm', 'f')
                AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
            OR c.relkind = 'S' AND a.privilege_type IN ('USAGE', 'UPDATE'))
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text, 'EXECUTE'
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang,
            pg_catalog.aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
        WHERE a.grantee = 0
        AND (n.nspname = 'pg_catalog' AND p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite',
                'lo_truncate', 'lo_truncate64', 'lo_unlink', 'lo_import', 'lo_export')
            OR current_setting('pgmoor.revoke_functions') = 'on' AND p.oid >= 16384 AND (p.prosecdef OR NOT l.lanpltrusted))
    LOOP
        FOREACH keeper IN ARRAY coalesce(keepers, '{}') LOOP
            EXECUTE format('GRANT %s ON %s %s TO %I', object.privilege, object.kind, object.identity, keeper);
        END LOOP;
        EXECUTE format('REVOKE %s ON %s %s FROM PUBLIC', object.privilege, object.kind, object.identity);
        RAISE NOTICE 'PUBLIC has no % on % % any more', object.privilege, lower(object.kind), object.identity;
    END LOOP;
END $pgmoor$;
