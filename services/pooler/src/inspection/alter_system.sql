    UNION ALL SELECT 'ALTER_SYSTEM', a.parname FROM pg_parameter_acl AS a
    WHERE has_parameter_privilege(session_user, a.parname, 'ALTER SYSTEM')
