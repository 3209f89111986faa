-- $1: the pooler that asks. $2: how old what was found may become, in seconds. $3, $4, $5: servers, kinds of credentials and
-- databases that are left out, of each the first, the second and so on together. $6: most rows.
WITH logins AS (
    SELECT s.id AS server_id, s.instance_id, s.maintenance_database, o.incarnation IS NOT NULL AS is_owned,
        CASE WHEN r.id IS NULL THEN 'shared' ELSE 'read_only' END AS kind,
        coalesce(r.role_name, s.username) AS username, coalesce(r.id, c.id) AS credential_id,
        coalesce(p.trusted_functions, '{}') AS trusted_functions,
        -- Nothing where the policy leaves them open.
        CASE WHEN jsonb_typeof(s.policy -> 'databases') = 'array'
            THEN ARRAY(SELECT jsonb_array_elements_text(s.policy -> 'databases')) END AS named
    FROM pgmoor.servers AS s
    LEFT JOIN pgmoor.credentials AS c ON c.server_id = s.id
    LEFT JOIN pgmoor.role_credentials AS r ON r.server_id = s.id AND r.kind = 'read_only'
    LEFT JOIN pgmoor.inspection_policies AS p ON p.server_id = s.id
    LEFT JOIN pgmoor.instance_owners AS o
        ON o.instance_id = s.instance_id AND NOT o.released AND o.lease_until > clock_timestamp()
    WHERE (o.incarnation IS NULL OR o.incarnation = $1)
    -- Where everybody has to have a credential of their own, nobody reads with the shared one.
    AND (r.id IS NOT NULL
        OR c.id IS NOT NULL AND s.policy ->> 'credential_mode' IS DISTINCT FROM 'personal_only')
)
SELECT l.server_id, l.instance_id, l.is_owned, l.kind, d.name AS database_name
FROM logins AS l
CROSS JOIN LATERAL (SELECT l.maintenance_database UNION SELECT unnest(l.named)) AS d (name)
LEFT JOIN pgmoor.inspections AS i
    ON i.server_id = l.server_id AND i.credential_kind = l.kind AND i.username = l.username AND i.database_name = d.name
WHERE (i.server_id IS NULL
OR i.credential_id <> l.credential_id
OR i.trusted_functions <> l.trusted_functions
OR i.allowed_databases <> coalesce(l.named, ARRAY[l.maintenance_database])
-- What is taken off: by the last two bytes of the id, which are random.
OR i.check_time <= clock_timestamp() - make_interval(secs => $2 * (1 - ('x' || right(l.server_id::text, 4))::bit(16)::int / 65536.0::float8 / 6)))
AND NOT EXISTS (
    SELECT FROM unnest($3::uuid[], $4::text[], $5::text[]) AS e (server_id, kind, name)
    WHERE e.server_id = l.server_id AND e.kind = l.kind AND e.name = d.name)
-- Of the instances that nobody owns some are for other poolers: they must not take the place of what is the caller's.
ORDER BY l.is_owned DESC, i.check_time NULLS FIRST, l.server_id, d.name
LIMIT $6
