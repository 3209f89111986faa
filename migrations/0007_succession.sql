-- What the next owner of an instance has to know of the one before: its connections, its sessions, the slots it gave to
-- workers, and whether it may still open anything.

-- Owners that were taken over from and did not give the instance back. Until one is known to be gone, its successor leaves room
-- for what it may have been opening at that moment.
CREATE TABLE pgmoor.instance_predecessors (
    instance_id uuid NOT NULL,
    -- The process.
    incarnation uuid NOT NULL,
    pooler_id smallint NOT NULL,
    -- Where it served the internal protocol; NULL where it was not registered any more.
    address text,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT instance_predecessors_pkey PRIMARY KEY (instance_id, incarnation),
    CONSTRAINT instance_predecessors_instance_id
        FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id) ON DELETE CASCADE
);
GRANT SELECT, INSERT, DELETE ON pgmoor.instance_predecessors TO pgmoor_pooler;
GRANT UPDATE (instance_id) ON pgmoor.instance_predecessors TO pgmoor_pooler;

-- Instances that turned out to be another, for those who know them by their old ids.
CREATE TABLE pgmoor.instance_merges (
    id uuid NOT NULL,
    into_id uuid NOT NULL,
    CONSTRAINT instance_merges_pkey PRIMARY KEY (id),
    CONSTRAINT instance_merges_into_id
        FOREIGN KEY (into_id) REFERENCES pgmoor.instances (id) ON DELETE CASCADE
);
CREATE INDEX instance_merges_into_id ON pgmoor.instance_merges (into_id);
GRANT SELECT, INSERT, UPDATE ON pgmoor.instance_merges TO pgmoor_pooler;

-- Connections as their poolers recorded them. A pooler has only few that are not recorded.
CREATE TABLE pgmoor.pooler_connections (
    instance_id uuid NOT NULL,
    incarnation uuid NOT NULL,
    -- pg_stat_activity.pid and backend_start: together they are never used again.
    backend_pid integer NOT NULL,
    backend_start timestamptz NOT NULL,
    -- The registration whose role logged in, and may end it. It may be gone by now.
    server_id uuid NOT NULL,
    CONSTRAINT pooler_connections_pkey PRIMARY KEY (instance_id, incarnation, backend_pid, backend_start),
    CONSTRAINT pooler_connections_instance_id
        FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id) ON DELETE CASCADE
);
GRANT SELECT, INSERT, DELETE ON pgmoor.pooler_connections TO pgmoor_pooler;
GRANT UPDATE (instance_id) ON pgmoor.pooler_connections TO pgmoor_pooler;

-- Slots that are given to a worker's operation.
CREATE TABLE pgmoor.slot_leases (
    -- `operations/{operation}`.
    operation text COLLATE "C" NOT NULL,
    instance_id uuid NOT NULL,
    -- The pooler that gave them.
    incarnation uuid NOT NULL,
    slots integer NOT NULL,
    CONSTRAINT slot_leases_pkey PRIMARY KEY (operation, instance_id),
    CONSTRAINT slot_leases_instance_id
        FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id) ON DELETE CASCADE,
    CONSTRAINT slot_leases_slots CHECK (slots > 0)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.slot_leases TO pgmoor_pooler;

-- Query sessions, for the pooler that holds them next.
CREATE TABLE pgmoor.sessions (
    -- 23 characters of base32.
    id text COLLATE "C" NOT NULL,
    server_id uuid NOT NULL,
    instance_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    -- The pooler process that holds it.
    pooler_incarnation uuid NOT NULL,
    -- That one has let go of it, with nothing lost: whoever owns the instance goes on with it.
    parked boolean NOT NULL DEFAULT false,
    -- It ended with its pooler, for this cause: whoever owns the instance tells its owner.
    loss text COLLATE "C",
    mode text NOT NULL,
    database_name text NOT NULL,
    username text NOT NULL,
    -- [["name", "value"]]: run-time parameters it starts with.
    parameters jsonb NOT NULL DEFAULT '[]',
    idle_timeout_ms bigint NOT NULL,
    idle_in_transaction_timeout_ms bigint NOT NULL,
    queue_timeout_ms bigint NOT NULL,
    -- Counts from 1 how often it was recovered.
    incarnation bigint NOT NULL DEFAULT 1,
    -- Recovered, and nobody was told yet.
    untold boolean NOT NULL DEFAULT false,
    -- What held it on its backend when that was last looked at: reasons, separated by commas.
    pins text COLLATE "C" NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_server_id FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT sessions_instance_id FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id) ON DELETE CASCADE,
    CONSTRAINT sessions_owner_id FOREIGN KEY (owner_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT sessions_mode CHECK (mode IN ('pinned', 'auto')),
    CONSTRAINT sessions_incarnation CHECK (incarnation > 0)
);
CREATE INDEX sessions_instance_id ON pgmoor.sessions (instance_id, pooler_incarnation);
CREATE INDEX sessions_server_id ON pgmoor.sessions (server_id);
CREATE INDEX sessions_owner_id ON pgmoor.sessions (owner_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.sessions TO pgmoor_pooler;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (7, 1);
