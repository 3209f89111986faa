-- Background work, its logs, and the backups it makes.

CREATE TABLE pgmoor.operations (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'queued',
    -- No foreign keys: an operation that has ended outlives what it worked on.
    server_id uuid NOT NULL,
    database text NOT NULL,
    backup_id uuid,
    -- What is to be done, in the worker's terms. No secrets.
    request jsonb NOT NULL,
    -- The client's, so that a request that is sent again finds its operation.
    request_id text COLLATE "C",
    request_hash bytea,
    phase text,
    bytes_done bigint NOT NULL DEFAULT 0,
    bytes_total bigint,
    objects_done bigint NOT NULL DEFAULT 0,
    objects_total bigint,
    error_reason text,
    error_message text,
    exit_status integer,
    -- How often a worker began it: the fence against a worker that was given up and comes back.
    attempt integer NOT NULL DEFAULT 0,
    -- How often it may be begun before a lost worker makes it fail.
    max_attempts integer NOT NULL DEFAULT 1,
    incarnation uuid,
    lease_until timestamptz,
    cancel_requested boolean NOT NULL DEFAULT false,
    log_size bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    start_time timestamptz,
    end_time timestamptz,
    CONSTRAINT operations_pkey PRIMARY KEY (id),
    CONSTRAINT operations_owner_id FOREIGN KEY (owner_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT operations_request_id_key UNIQUE (owner_id, request_id),
    CONSTRAINT operations_request_id CHECK ((request_id IS NULL) = (request_hash IS NULL)),
    CONSTRAINT operations_kind CHECK (kind IN ('backup', 'restore')),
    CONSTRAINT operations_state CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT operations_running
        CHECK ((state = 'running') = (incarnation IS NOT NULL) AND (state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT operations_ended CHECK ((state IN ('queued', 'running')) = (end_time IS NULL)),
    CONSTRAINT operations_error
        CHECK ((state = 'failed') = (error_reason IS NOT NULL) AND (state = 'failed') = (error_message IS NOT NULL)),
    CONSTRAINT operations_attempt CHECK (attempt >= 0 AND max_attempts > 0)
);
CREATE INDEX operations_list ON pgmoor.operations (owner_id, create_time DESC, id DESC);
CREATE INDEX operations_queued ON pgmoor.operations (create_time, id) WHERE state = 'queued';
CREATE INDEX operations_running ON pgmoor.operations (lease_until) WHERE state = 'running';
CREATE INDEX operations_server_id ON pgmoor.operations (server_id) WHERE state IN ('queued', 'running');
CREATE INDEX operations_backup_id ON pgmoor.operations (backup_id) WHERE state IN ('queued', 'running');
CREATE INDEX operations_end_time ON pgmoor.operations (end_time) WHERE end_time IS NOT NULL;
GRANT SELECT, INSERT, DELETE ON pgmoor.operations TO pgmoor_api;
GRANT UPDATE (state, cancel_requested, end_time, request_id, request_hash) ON pgmoor.operations TO pgmoor_api;
GRANT SELECT, DELETE ON pgmoor.operations TO pgmoor_worker;
GRANT UPDATE (state, phase, bytes_done, bytes_total, objects_done, objects_total, error_reason, error_message,
              exit_status, attempt, incarnation, lease_until, log_size, start_time, end_time)
    ON pgmoor.operations TO pgmoor_worker;
-- A pooler gives slots to operations that run, and to no others.
GRANT SELECT (id, owner_id, kind, state, server_id, database, incarnation, attempt) ON pgmoor.operations TO pgmoor_pooler;

CREATE TABLE pgmoor.operation_logs (
    operation_id uuid NOT NULL,
    -- Where the piece begins, in bytes.
    log_offset bigint NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT operation_logs_pkey PRIMARY KEY (operation_id, log_offset),
    CONSTRAINT operation_logs_operation_id
        FOREIGN KEY (operation_id) REFERENCES pgmoor.operations (id) ON DELETE CASCADE,
    CONSTRAINT operation_logs_data_length CHECK (octet_length(data) > 0)
);
GRANT SELECT ON pgmoor.operation_logs TO pgmoor_api;
GRANT SELECT, INSERT ON pgmoor.operation_logs TO pgmoor_worker;

CREATE TABLE pgmoor.backups (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    server_id uuid NOT NULL,
    database text NOT NULL,
    schemas text[] NOT NULL,
    -- [{"schema": text, "table": text}]
    tables jsonb NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    -- Where the artifact is in the object store.
    storage_key text NOT NULL,
    tool_version text NOT NULL,
    server_version text NOT NULL,
    operation_id uuid NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT backups_pkey PRIMARY KEY (id),
    CONSTRAINT backups_owner_id FOREIGN KEY (owner_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT backups_storage_key_key UNIQUE (storage_key),
    CONSTRAINT backups_size_bytes CHECK (size_bytes >= 0),
    CONSTRAINT backups_sha256_length CHECK (octet_length(sha256) = 32)
);
CREATE INDEX backups_list ON pgmoor.backups (owner_id, create_time DESC, id DESC);
-- UPDATE only for the lock that keeps a backup while a restore of it is asked for.
GRANT SELECT, DELETE, UPDATE (create_time) ON pgmoor.backups TO pgmoor_api;
GRANT SELECT, INSERT ON pgmoor.backups TO pgmoor_worker;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (5, 1);
