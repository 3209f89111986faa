-- Whose chain of the audit trail is whose. A process makes a secret when it starts. With its first records it is entered here:
-- by the role it logged in with and the secret's hash; whoever adds to the chain later has to show the secret.

CREATE TABLE pgmoor.audit_writers (
    writer uuid NOT NULL,
    writer_role text NOT NULL,
    -- What it logged in as.
    login text NOT NULL,
    -- SHA-256 of the secret; nothing for a program of a version that had none.
    secret_hash bytea,
    begin_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_writers_pkey PRIMARY KEY (writer),
    CONSTRAINT audit_writers_writer_role CHECK (writer_role IN ('api', 'pooler', 'worker')),
    CONSTRAINT audit_writers_secret_hash_length CHECK (octet_length(secret_hash) = 32)
);
INSERT INTO pgmoor.audit_writers (writer, writer_role, login)
SELECT DISTINCT ON (r.writer) r.writer, r.writer_role, '' FROM pgmoor.audit_records AS r ORDER BY r.writer, r.sequence;
-- Not the hash: nobody needs it.
GRANT SELECT (writer, writer_role, login, begin_time) ON pgmoor.audit_writers TO pgmoor_api;

-- Enters a writer, or fails where it is another's: of another role than who logged in has, or with another secret.
CREATE FUNCTION pgmoor.admit_audit_writer(new_writer uuid, new_role text, new_hash bytea) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role(session_user, 'pgmoor_' || new_role, 'MEMBER') THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may not write audit records of role %s', session_user, new_role);
    END IF;
    INSERT INTO pgmoor.audit_writers (writer, writer_role, login, secret_hash)
    VALUES (new_writer, new_role, session_user, new_hash) ON CONFLICT ON CONSTRAINT audit_writers_pkey DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM pgmoor.audit_writers AS w WHERE w.writer = new_writer
            AND w.writer_role = new_role AND w.secret_hash IS NOT DISTINCT FROM new_hash) THEN
        RAISE insufficient_privilege USING MESSAGE = format('the audit writer %s is another process', new_writer);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION pgmoor.admit_audit_writer(uuid, text, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgmoor.admit_audit_writer(uuid, text, bytea) TO pgmoor_api, pgmoor_pooler, pgmoor_worker;

-- Adds records to a writer's chain, those that are there already left as they are, and returns how many were added.
CREATE FUNCTION pgmoor.append_audit(to_writer uuid, of_role text, secret bytea, records jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base bigint;
    added bigint;
BEGIN
    IF secret IS NULL THEN
        -- Chains of programs that had none are closed to this function.
        RAISE null_value_not_allowed USING MESSAGE = 'an audit writer has a secret';
    END IF;
    PERFORM pgmoor.admit_audit_writer(to_writer, of_role, sha256(secret));
    -- The row with the position stays locked from here to the commit.
    UPDATE pgmoor.audit_position SET position = position + jsonb_array_length(records)
    RETURNING position - jsonb_array_length(records) INTO base;
    INSERT INTO pgmoor.audit_records (writer, sequence, writer_role, position, format, previous_hash, hash, kind, time,
        correlation_id, user_id, username, provider, credential, address, method, resources, session, database_name,
        role_name, statement_fingerprint, statement, outcome, reason, sqlstate, commit_outcome, row_count, byte_count,
        duration_us, policy_revision, count)
    SELECT to_writer, n.sequence, of_role, base + n.place, n.format, decode(n.previous_hash, 'hex'), decode(n.hash, 'hex'),
        n.kind, n.time::timestamptz, n.correlation_id, n.user_id, n.username, n.provider, n.credential, n.address, n.method,
        n.resources, n.session, n.database_name, n.role_name, n.statement_fingerprint, n.statement, n.outcome, n.reason,
        n.sqlstate, n.commit_outcome, n.row_count, n.byte_count, n.duration_us, n.policy_revision, n.count
    -- The place of a record is where it stands: whoever follows goes by positions.
    FROM ROWS FROM (jsonb_to_recordset(records) AS (sequence bigint, format smallint, previous_hash text, hash text,
        kind text, time text, correlation_id text, user_id uuid, username text, provider text, credential text, address text,
        method text, resources text[], session text, database_name text, role_name text, statement_fingerprint text,
        statement text, outcome text, reason text, sqlstate text, commit_outcome text, row_count bigint, byte_count bigint,
        duration_us bigint, policy_revision bigint, count bigint)) WITH ORDINALITY AS n (sequence, format, previous_hash,
        hash, kind, time, correlation_id, user_id, username, provider, credential, address, method, resources, session,
        database_name, role_name, statement_fingerprint, statement, outcome, reason, sqlstate, commit_outcome, row_count,
        byte_count, duration_us, policy_revision, count, place)
    ON CONFLICT ON CONSTRAINT audit_records_pkey DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    RETURN added;
END
$$;
REVOKE ALL ON FUNCTION pgmoor.append_audit(uuid, text, bytea, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgmoor.append_audit(uuid, text, bytea, jsonb) TO pgmoor_api, pgmoor_pooler, pgmoor_worker;

-- Records that come in another way: from a program of the version before, which shows no secret and so adds to no chain that
-- has one.
CREATE FUNCTION pgmoor.check_audit_writers() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_user <> (SELECT pg_get_userbyid(c.relowner) FROM pg_class AS c WHERE c.oid = TG_RELID) THEN
        PERFORM pgmoor.admit_audit_writer(a.writer, a.writer_role, NULL)
        FROM (SELECT DISTINCT n.writer, n.writer_role FROM added AS n) AS a;
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION pgmoor.check_audit_writers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgmoor.check_audit_writers() TO pgmoor_api, pgmoor_pooler, pgmoor_worker;
CREATE TRIGGER audit_records_writers AFTER INSERT ON pgmoor.audit_records
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION pgmoor.check_audit_writers();

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (17, 1);
