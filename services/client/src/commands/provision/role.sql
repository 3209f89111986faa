-- The role. It has no password yet: \password sets one.
DO $pgmoor$
DECLARE
    name text := current_setting('pgmoor.role');
    role pg_catalog.pg_roles;
BEGIN
    SELECT r.* INTO role FROM pg_catalog.pg_roles AS r WHERE r.rolname = name;
    IF NOT FOUND THEN
        EXECUTE format('CREATE ROLE %I LOGIN', name);
    ELSIF role.rolsuper OR role.rolcreatedb OR role.rolcreaterole OR role.rolreplication OR role.rolbypassrls THEN
        RAISE EXCEPTION 'role % is there already, and may do more than read: choose another name', name;
    ELSIF NOT role.rolcanlogin OR NOT role.rolinherit THEN
        EXECUTE format('ALTER ROLE %I LOGIN INHERIT', name);
    END IF;
END $pgmoor$;
