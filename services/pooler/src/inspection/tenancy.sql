-- Every right of the role that leads beyond the allowed databases: (code, object, how many in all). $1: the databases, separated
-- by the unit separator. $2: most rows.
WITH me AS (
    SELECT r.* FROM pg_roles AS r WHERE r.rolname = session_user
), mine AS (
    SELECT r.oid, r.rolname FROM pg_roles AS r WHERE pg_has_role(session_user, r.oid, 'MEMBER')
), rights (code, object) AS (
    SELECT 'REPLICATION', me.rolname::text FROM me WHERE me.rolreplication
    UNION ALL SELECT 'CREATE_DATABASE', me.rolname FROM me WHERE me.rolcreatedb
    UNION ALL SELECT 'CREATE_ROLE', me.rolname FROM me WHERE me.rolcreaterole
    -- Those reach the files and processes that all databases have in common.
    UNION ALL SELECT 'ROLE_MEMBER', m.rolname FROM mine AS m WHERE m.rolname IN (
        'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_signal_backend')
    UNION ALL SELECT 'ROLE_MEMBER', m.rolname FROM mine AS m JOIN pg_roles AS r ON r.oid = m.oid, me
    WHERE m.oid <> me.oid AND (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication)
    UNION ALL SELECT 'DATABASE_CONNECT', quote_ident(d.datname) FROM pg_database AS d
    WHERE d.datallowconn AND d.datname NOT IN (SELECT a.name FROM unnest(string_to_array($1, chr(31))) AS a (name))
    AND EXISTS (SELECT FROM mine AS m WHERE has_database_privilege(m.oid, d.oid, 'CONNECT'))
), found (code, object) AS (
    SELECT 'SUPERUSER', me.rolname::text FROM me WHERE me.rolsuper
    UNION ALL SELECT r.code, r.object FROM rights AS r, me WHERE NOT me.rolsuper
)
SELECT f.code, f.object, count(*) OVER () FROM found AS f ORDER BY f.code, f.object LIMIT $2::bigint
