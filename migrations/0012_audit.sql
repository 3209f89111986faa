-- The audit trail: who called what and how it ended, as the processes wrote it down. Each process is a writer with a chain of
-- its own: every record has the hash of the one before it.

CREATE TABLE pgmoor.audit_records (
    -- The process that wrote it; its records are numbered from 1, without gaps.
    writer uuid NOT NULL,
    sequence bigint NOT NULL,
    writer_role text NOT NULL,
    -- Where it came in among the records of all writers: in the order of the commits, so that who follows misses nothing.
    position bigint NOT NULL,
    -- When it arrived, on this database's clock. No writer says this: retention goes by it.
    insert_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- How the hash is made.
    format smallint NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    kind text NOT NULL,
    -- On the writer's clock.
    time timestamptz NOT NULL,
    -- The trace both records of a call belong to.
    correlation_id text NOT NULL,
    -- No foreign key: a record outlives its user.
    user_id uuid,
    -- As of then. Of a login that failed, what was attempted.
    username text NOT NULL,
    provider text NOT NULL,
    credential text NOT NULL,
    address text NOT NULL,
    method text NOT NULL,
    resources text[] NOT NULL,
    session text NOT NULL,
    database_name text NOT NULL,
    role_name text NOT NULL,
    statement_fingerprint text NOT NULL,
    statement text NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    sqlstate text NOT NULL,
    commit_outcome text NOT NULL,
    row_count bigint NOT NULL,
    byte_count bigint NOT NULL,
    duration_us bigint NOT NULL,
    policy_revision bigint NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT audit_records_pkey PRIMARY KEY (writer, sequence),
    CONSTRAINT audit_records_sequence CHECK (sequence > 0),
    CONSTRAINT audit_records_writer_role CHECK (writer_role IN ('api', 'pooler', 'worker')),
    CONSTRAINT audit_records_hash_length CHECK (octet_length(previous_hash) = 32 AND octet_length(hash) = 32)
);
CREATE INDEX audit_records_time ON pgmoor.audit_records (time, writer, sequence);
CREATE INDEX audit_records_position ON pgmoor.audit_records (position);
CREATE INDEX audit_records_user_id ON pgmoor.audit_records (user_id, time) WHERE user_id IS NOT NULL;
CREATE INDEX audit_records_session ON pgmoor.audit_records (session, time) WHERE session <> '';
CREATE INDEX audit_records_correlation_id ON pgmoor.audit_records (correlation_id) WHERE correlation_id <> '';

-- Everything but `insert_time`. Nobody but the owner changes or deletes a record.
GRANT INSERT (writer, sequence, writer_role, position, format, previous_hash, hash, kind, time, correlation_id, user_id,
        username, provider, credential, address, method, resources, session, database_name, role_name,
        statement_fingerprint, statement, outcome, reason, sqlstate, commit_outcome, row_count, byte_count, duration_us,
        policy_revision, count)
    ON pgmoor.audit_records TO pgmoor_api, pgmoor_pooler, pgmoor_worker;
GRANT SELECT ON pgmoor.audit_records TO pgmoor_api;

-- The position that was given last. Its row is locked until the records are committed.
CREATE TABLE pgmoor.audit_position (
    lone boolean NOT NULL DEFAULT true,
    position bigint NOT NULL DEFAULT 0,
    CONSTRAINT audit_position_pkey PRIMARY KEY (lone),
    CONSTRAINT audit_position_lone CHECK (lone)
);
INSERT INTO pgmoor.audit_position DEFAULT VALUES;
GRANT SELECT, UPDATE (position) ON pgmoor.audit_position TO pgmoor_api, pgmoor_pooler, pgmoor_worker;

-- Where retention cut a chain: the last record that was deleted, so that what is left can still be verified.
CREATE TABLE pgmoor.audit_anchors (
    writer uuid NOT NULL,
    sequence bigint NOT NULL,
    hash bytea NOT NULL,
    cut_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_anchors_pkey PRIMARY KEY (writer),
    CONSTRAINT audit_anchors_hash_length CHECK (octet_length(hash) = 32)
);
GRANT SELECT ON pgmoor.audit_anchors TO pgmoor_api;

-- Deletes what arrived longer than `keep` ago, from the beginning of each chain, at most `most` records, and returns how many
-- it were. A worker may delete records by this alone, and none that is younger than a day, whatever it asks for.
CREATE FUNCTION pgmoor.cut_audit(keep interval, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before timestamptz := clock_timestamp() - greatest(keep, interval '1 day');
    cut record;
    deleted bigint;
    total bigint := 0;
BEGIN
    -- One at a time. The number is this table's own.
    IF NOT pg_try_advisory_xact_lock('pgmoor.audit_records'::regclass::oid::bigint) THEN
        RETURN 0;
    END IF;
    FOR cut IN
        SELECT oldest.writer, max(oldest.sequence) AS sequence
        FROM (SELECT r.writer, r.sequence, r.insert_time FROM pgmoor.audit_records AS r
              ORDER BY r.position LIMIT most) AS oldest
        WHERE oldest.insert_time < before
        GROUP BY oldest.writer
    LOOP
        INSERT INTO pgmoor.audit_anchors AS a (writer, sequence, hash)
        SELECT r.writer, r.sequence, r.hash FROM pgmoor.audit_records AS r
        WHERE r.writer = cut.writer AND r.sequence = cut.sequence
        ON CONFLICT ON CONSTRAINT audit_anchors_pkey
            DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, cut_time = excluded.cut_time
            WHERE a.sequence < excluded.sequence;
        DELETE FROM pgmoor.audit_records AS r
        WHERE r.writer = cut.writer AND r.sequence <= cut.sequence AND r.insert_time < before;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        total := total + deleted;
    END LOOP;
    RETURN total;
END
$$;
REVOKE ALL ON FUNCTION pgmoor.cut_audit(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgmoor.cut_audit(interval, integer) TO pgmoor_worker;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (12, 1);
