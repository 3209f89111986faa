-- Every right of the role that goes beyond reading: (code, object, how many in all). $1: trusted functions, separated by the
-- unit separator. $2: most rows.
WITH me AS (
    SELECT r.* FROM pg_roles AS r WHERE r.rolname = session_user
), trusted AS (
    SELECT t.name FROM unnest(string_to_array($1, chr(31))) AS t (name)
), schemas AS (
    SELECT n.oid, n.nspname FROM pg_namespace AS n
    WHERE n.nspname NOT LIKE 'pg\_temp\_%' AND n.nspname NOT LIKE 'pg\_toast%'
), functions AS (
    SELECT p.oid, p.proname, p.pronamespace, p.prosecdef, l.lanpltrusted
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE has_function_privilege(session_user, p.oid, 'EXECUTE')
    AND p.oid::regprocedure::text NOT IN (SELECT name FROM trusted)
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        AND d.refclassid = 'pg_extension'::regclass AND 'extension:' || e.extname IN (SELECT name FROM trusted))
), rights (code, object) AS (
    SELECT 'REPLICATION', me.rolname::text FROM me WHERE me.rolreplication
    UNION ALL SELECT 'BYPASS_ROW_SECURITY', me.rolname FROM me WHERE me.rolbypassrls
    UNION ALL SELECT 'CREATE_DATABASE', me.rolname FROM me WHERE me.rolcreatedb
    UNION ALL SELECT 'CREATE_ROLE', me.rolname FROM me WHERE me.rolcreaterole
    -- Roles that only read are well where they are inherited: their rights are the role's own then, and are looked at as such.
    UNION ALL SELECT 'ROLE_MEMBER', r.rolname FROM me, pg_roles AS r
    WHERE r.oid <> me.oid AND pg_has_role(session_user, r.oid, 'MEMBER')
    AND NOT (pg_has_role(session_user, r.oid, 'USAGE') AND r.rolname IN (
        'pg_read_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables', 'pg_monitor'))
    UNION ALL SELECT 'OWNER', coalesce(pg_describe_object(d.classid, d.objid, d.objsubid), '?')
    FROM me, pg_shdepend AS d
    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = me.oid AND d.deptype = 'o'
    AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    -- Everybody may UPDATE pg_settings, which does what SET does.
    UNION ALL SELECT 'TABLE_WRITE', format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN schemas AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid <> 'pg_settings'::regclass
    AND (has_table_privilege(session_user, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
        OR has_any_column_privilege(session_user, c.oid, 'INSERT, UPDATE'))
    UNION ALL SELECT 'SEQUENCE_WRITE', format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN schemas AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND has_sequence_privilege(session_user, c.oid, 'USAGE, UPDATE')
    UNION ALL SELECT 'SCHEMA_CREATE', quote_ident(n.nspname)
    FROM schemas AS n WHERE has_schema_privilege(session_user, n.oid, 'CREATE')
    UNION ALL SELECT 'DATABASE_CREATE', quote_ident(current_database())
    WHERE has_database_privilege(session_user, current_database(), 'CREATE')
    UNION ALL SELECT 'TEMPORARY', quote_ident(current_database())
    WHERE has_database_privilege(session_user, current_database(), 'TEMPORARY')
    UNION ALL SELECT 'LARGE_OBJECT_FUNCTION', f.oid::regprocedure::text FROM functions AS f
    WHERE f.pronamespace = 'pg_catalog'::regnamespace AND f.proname IN (
        'lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_truncate', 'lo_truncate64', 'lo_unlink',
        'lo_import', 'lo_export')
    UNION ALL SELECT 'SECURITY_DEFINER_FUNCTION', f.oid::regprocedure::text FROM functions AS f WHERE f.prosecdef
    -- What came with the server itself has lower ids. What takes or gives internal values cannot be called.
    UNION ALL SELECT 'UNTRUSTED_FUNCTION', f.oid::regprocedure::text FROM functions AS f JOIN pg_proc AS p ON p.oid = f.oid
    WHERE f.oid >= 16384 AND NOT f.lanpltrusted AND NOT f.prosecdef
    AND p.prorettype NOT IN (SELECT t.oid FROM pg_type AS t WHERE t.typname IN (
        'trigger', 'event_trigger', 'internal', 'fdw_handler', 'language_handler', 'index_am_handler', 'table_am_handler',
        'tsm_handler'))
    AND NOT 'internal'::regtype::oid = ANY (p.proargtypes::oid[])
    UNION ALL SELECT 'FOREIGN_SERVER', quote_ident(s.srvname) FROM pg_foreign_server AS s
    WHERE has_server_privilege(session_user, s.oid, 'USAGE')
    OR EXISTS (SELECT FROM me, pg_user_mappings AS m WHERE m.srvid = s.oid AND m.umuser IN (0, me.oid))
    UNION ALL SELECT 'FOREIGN_SERVER', quote_ident(w.fdwname) FROM pg_foreign_data_wrapper AS w
    WHERE has_foreign_data_wrapper_privilege(session_user, w.oid, 'USAGE')
    /* PostgreSQL 15 and later */
), found (code, object) AS (
    SELECT 'SUPERUSER', me.rolname::text FROM me WHERE me.rolsuper
    UNION ALL SELECT r.code, r.object FROM rights AS r, me WHERE NOT me.rolsuper
)
SELECT f.code, f.object, count(*) OVER () FROM found AS f ORDER BY f.code, f.object LIMIT $2::bigint
