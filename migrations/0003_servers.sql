-- Physical PostgreSQL endpoints, users' registrations of them, and the sealed passwords.

CREATE TABLE pgmoor.instances (
    id uuid NOT NULL,
    -- [{"host": text, "port": number}], in the order they are tried.
    endpoints jsonb NOT NULL,
    tls_mode text NOT NULL,
    root_certificates text,
    max_connections integer NOT NULL DEFAULT 20,
    reserved_connections integer NOT NULL DEFAULT 5,
    -- What the server said of itself when somebody was last connected; NULL before.
    system_identifier text COLLATE "C",
    postmaster_start_time timestamptz,
    server_version text,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT instances_pkey PRIMARY KEY (id),
    CONSTRAINT instances_tls_mode CHECK (tls_mode IN ('disable', 'require', 'verify-full')),
    CONSTRAINT instances_budget
        CHECK (max_connections BETWEEN 1 AND 10000 AND reserved_connections BETWEEN 0 AND max_connections - 1),
    CONSTRAINT instances_facts CHECK (num_nulls(system_identifier, postmaster_start_time, server_version) IN (0, 3)),
    -- A standby has the primary's system_identifier, and a postmaster of its own.
    CONSTRAINT instances_identity_key UNIQUE (system_identifier, postmaster_start_time)
);
CREATE INDEX instances_list ON pgmoor.instances (create_time, id);
GRANT SELECT, INSERT, UPDATE ON pgmoor.instances TO pgmoor_api;
GRANT SELECT, DELETE ON pgmoor.instances TO pgmoor_pooler;
GRANT UPDATE (system_identifier, postmaster_start_time, server_version, version, update_time)
    ON pgmoor.instances TO pgmoor_pooler;
GRANT SELECT ON pgmoor.instances TO pgmoor_worker;

-- Which instance a registration's endpoints mean. Several, once instances turned out to be one.
CREATE TABLE pgmoor.instance_endpoints (
    -- `host:port,host:port`, normalised by the program.
    endpoints_key text COLLATE "C" NOT NULL,
    instance_id uuid NOT NULL,
    CONSTRAINT instance_endpoints_pkey PRIMARY KEY (endpoints_key),
    CONSTRAINT instance_endpoints_instance_id FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id)
);
CREATE INDEX instance_endpoints_instance_id ON pgmoor.instance_endpoints (instance_id);
GRANT SELECT, INSERT ON pgmoor.instance_endpoints TO pgmoor_api;
GRANT SELECT, UPDATE (instance_id) ON pgmoor.instance_endpoints TO pgmoor_pooler;

CREATE TABLE pgmoor.servers (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    group_name text COLLATE "C" NOT NULL DEFAULT 'Servers',
    display_name text COLLATE "C" NOT NULL,
    instance_id uuid NOT NULL,
    endpoints jsonb NOT NULL,
    tls_mode text NOT NULL,
    root_certificates text,
    maintenance_database text NOT NULL DEFAULT 'postgres',
    username text NOT NULL,
    comment text NOT NULL DEFAULT '',
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT servers_pkey PRIMARY KEY (id),
    CONSTRAINT servers_owner_id FOREIGN KEY (owner_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT servers_instance_id FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id),
    CONSTRAINT servers_name_key UNIQUE (owner_id, group_name, display_name),
    CONSTRAINT servers_tls_mode CHECK (tls_mode IN ('disable', 'require', 'verify-full')),
    CONSTRAINT servers_group_name_length CHECK (char_length(group_name) BETWEEN 1 AND 200),
    CONSTRAINT servers_display_name_length CHECK (char_length(display_name) BETWEEN 1 AND 200),
    CONSTRAINT servers_comment_length CHECK (char_length(comment) <= 1024)
);
CREATE INDEX servers_instance_id ON pgmoor.servers (instance_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.servers TO pgmoor_api;
GRANT SELECT, UPDATE (instance_id, version, update_time) ON pgmoor.servers TO pgmoor_pooler;
GRANT SELECT ON pgmoor.servers TO pgmoor_worker;

-- The public halves of the keys that passwords are sealed to. The private ones are in no database.
CREATE TABLE pgmoor.sealing_keys (
    key_id text COLLATE "C" NOT NULL,
    public_key bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    retire_time timestamptz,
    CONSTRAINT sealing_keys_pkey PRIMARY KEY (key_id),
    CONSTRAINT sealing_keys_public_key_length CHECK (octet_length(public_key) BETWEEN 1 AND 4096)
);
-- Whoever opens says to what is sealed: an API instance must not be able to name a key of its own.
GRANT SELECT ON pgmoor.sealing_keys TO pgmoor_api;
GRANT SELECT, INSERT, UPDATE (retire_time) ON pgmoor.sealing_keys TO pgmoor_pooler, pgmoor_worker;

CREATE TABLE pgmoor.credentials (
    id uuid NOT NULL,
    server_id uuid NOT NULL,
    sealed bytea NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT credentials_pkey PRIMARY KEY (id),
    CONSTRAINT credentials_server_id_key UNIQUE (server_id),
    CONSTRAINT credentials_server_id FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT credentials_key_id FOREIGN KEY (key_id) REFERENCES pgmoor.sealing_keys (key_id),
    CONSTRAINT credentials_sealed_length CHECK (octet_length(sealed) BETWEEN 1 AND 65536)
);
-- An API instance seals and does not even see what it sealed.
GRANT SELECT (id, server_id, key_id, create_time), INSERT, DELETE ON pgmoor.credentials TO pgmoor_api;
GRANT SELECT ON pgmoor.credentials TO pgmoor_pooler, pgmoor_worker;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (3, 1);
