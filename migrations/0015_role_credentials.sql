-- Credentials that log in as a role of their own: a server's read-only one, and those that users have for themselves.
--
-- They are in a table of their own, so that pgmoor.credentials goes on to hold what programs of before read there: at most one
-- password of a server, for the server's own role.

CREATE TABLE pgmoor.role_credentials (
    id uuid NOT NULL,
    server_id uuid NOT NULL,
    kind text NOT NULL,
    -- Whose it is; nobody's where it is read-only.
    user_id uuid,
    -- The PostgreSQL role that logs in.
    role_name text NOT NULL,
    sealed bytea NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT role_credentials_pkey PRIMARY KEY (id),
    CONSTRAINT role_credentials_server_id
        FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT role_credentials_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT role_credentials_key_id FOREIGN KEY (key_id) REFERENCES pgmoor.sealing_keys (key_id),
    CONSTRAINT role_credentials_kind
        CHECK (kind = 'read_only' AND user_id IS NULL OR kind = 'personal' AND user_id IS NOT NULL),
    CONSTRAINT role_credentials_sealed_length CHECK (octet_length(sealed) BETWEEN 1 AND 65536)
);
CREATE UNIQUE INDEX role_credentials_read_only_key ON pgmoor.role_credentials (server_id) WHERE kind = 'read_only';
CREATE UNIQUE INDEX role_credentials_personal_key ON pgmoor.role_credentials (server_id, user_id) WHERE kind = 'personal';
CREATE INDEX role_credentials_user_id ON pgmoor.role_credentials (user_id) WHERE user_id IS NOT NULL;
-- An API instance seals and does not even see what it sealed.
GRANT SELECT (id, server_id, kind, user_id, role_name, key_id, create_time), INSERT, DELETE
    ON pgmoor.role_credentials TO pgmoor_api;
GRANT SELECT ON pgmoor.role_credentials TO pgmoor_pooler, pgmoor_worker;

-- With which credential a connection logged in: its role may end it. NULL: with the server's shared one.
ALTER TABLE pgmoor.pooler_connections ADD COLUMN credential_kind text;
ALTER TABLE pgmoor.pooler_connections ADD COLUMN credential_user_id uuid;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (15, 1);
