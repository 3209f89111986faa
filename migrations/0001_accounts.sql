-- Users, what they log in with, and what ends it.

GRANT USAGE ON SCHEMA pgmoor TO pgmoor_api, pgmoor_pooler, pgmoor_worker;

-- The oldest program that may use each version of the schema.
CREATE TABLE pgmoor.schema_compatibility (
    version bigint NOT NULL,
    min_compatible bigint NOT NULL,
    CONSTRAINT schema_compatibility_pkey PRIMARY KEY (version),
    CONSTRAINT schema_compatibility_min_compatible CHECK (min_compatible BETWEEN 1 AND version)
);
GRANT SELECT ON pgmoor.schema_compatibility TO pgmoor_api, pgmoor_pooler, pgmoor_worker;

-- Revisions that are given in the order of the commits: incremented in the transaction of the change they number.
CREATE TABLE pgmoor.counters (
    name text NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    CONSTRAINT counters_pkey PRIMARY KEY (name)
);
INSERT INTO pgmoor.counters (name) VALUES ('revocations'), ('settings'), ('signing_keys');
GRANT SELECT ON pgmoor.counters TO pgmoor_api, pgmoor_pooler, pgmoor_worker;
GRANT UPDATE (revision) ON pgmoor.counters TO pgmoor_api;

CREATE TABLE pgmoor.users (
    id uuid NOT NULL,
    username text NOT NULL,
    -- The login name folded by the program, so that no locale of the server decides what is equal.
    username_key text COLLATE "C" NOT NULL,
    display_name text NOT NULL,
    -- A PHC string (argon2id); NULL for a user who cannot log in with a password.
    password_hash text,
    administrator boolean NOT NULL DEFAULT false,
    disabled boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_username_key UNIQUE (username_key),
    CONSTRAINT users_username_length CHECK (char_length(username) BETWEEN 1 AND 100),
    CONSTRAINT users_display_name_length CHECK (char_length(display_name) BETWEEN 1 AND 200)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.users TO pgmoor_api;
-- Who they are and whether they still may; never the password's hash.
GRANT SELECT (id, username, display_name, administrator, disabled, version, create_time, update_time)
    ON pgmoor.users TO pgmoor_pooler, pgmoor_worker;

-- A login: a family of refresh tokens, of which the youngest works.
CREATE TABLE pgmoor.logins (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    end_time timestamptz,
    end_reason text,
    CONSTRAINT logins_pkey PRIMARY KEY (id),
    CONSTRAINT logins_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT logins_end_reason CHECK (end_reason IN ('logout', 'reuse', 'password', 'disabled')),
    CONSTRAINT logins_end CHECK ((end_time IS NULL) = (end_reason IS NULL))
);
CREATE INDEX logins_active ON pgmoor.logins (user_id) WHERE end_time IS NULL;
CREATE INDEX logins_end_time ON pgmoor.logins (end_time) WHERE end_time IS NOT NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.logins TO pgmoor_api;

CREATE TABLE pgmoor.refresh_tokens (
    -- SHA-256 of the token.
    hash bytea NOT NULL,
    login_id uuid NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    expire_time timestamptz NOT NULL,
    use_time timestamptz,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (hash),
    CONSTRAINT refresh_tokens_login_id FOREIGN KEY (login_id) REFERENCES pgmoor.logins (id) ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_hash_length CHECK (octet_length(hash) = 32)
);
CREATE INDEX refresh_tokens_login_id ON pgmoor.refresh_tokens (login_id);
-- A login has one token that was not used.
CREATE UNIQUE INDEX refresh_tokens_unused ON pgmoor.refresh_tokens (login_id) WHERE use_time IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.refresh_tokens TO pgmoor_api;

CREATE TABLE pgmoor.api_tokens (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- SHA-256 of the token.
    hash bytea NOT NULL,
    display_name text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    expire_time timestamptz,
    revoke_time timestamptz,
    -- To the minute, so that a busy token is not a write with every call.
    last_use_time timestamptz,
    CONSTRAINT api_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT api_tokens_hash_key UNIQUE (hash),
    CONSTRAINT api_tokens_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT api_tokens_hash_length CHECK (octet_length(hash) = 32),
    CONSTRAINT api_tokens_display_name_length CHECK (char_length(display_name) BETWEEN 1 AND 200)
);
CREATE INDEX api_tokens_list ON pgmoor.api_tokens (user_id, create_time DESC, id DESC) WHERE revoke_time IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.api_tokens TO pgmoor_api;
-- A pooler verifies the user's own token.
GRANT SELECT ON pgmoor.api_tokens TO pgmoor_pooler;

-- Failed logins by name, of names that exist and names that do not alike.
CREATE TABLE pgmoor.login_throttles (
    key text COLLATE "C" NOT NULL,
    attempts integer NOT NULL,
    window_start_time timestamptz NOT NULL,
    CONSTRAINT login_throttles_pkey PRIMARY KEY (key),
    CONSTRAINT login_throttles_attempts CHECK (attempts > 0)
);
CREATE INDEX login_throttles_window_start_time ON pgmoor.login_throttles (window_start_time);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.login_throttles TO pgmoor_api;

-- The Ed25519 keys that sign access tokens, as raw bytes (RFC 8032).
CREATE TABLE pgmoor.signing_keys (
    id uuid NOT NULL,
    private_key bytea NOT NULL,
    public_key bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- From then on nothing it signed is accepted.
    retire_time timestamptz,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (id),
    CONSTRAINT signing_keys_private_key_length CHECK (octet_length(private_key) = 32),
    CONSTRAINT signing_keys_public_key_length CHECK (octet_length(public_key) = 32)
);
-- One key signs.
CREATE UNIQUE INDEX signing_keys_current ON pgmoor.signing_keys ((true)) WHERE retire_time IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.signing_keys TO pgmoor_api;
GRANT SELECT (id, public_key, create_time, retire_time) ON pgmoor.signing_keys TO pgmoor_pooler, pgmoor_worker;

-- What verifiers of tokens must know within seconds: everything of the subject that was issued up to `revoke_time` is void.
CREATE TABLE pgmoor.revocations (
    revision bigint NOT NULL,
    kind text NOT NULL,
    subject_id uuid NOT NULL,
    revoke_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT revocations_pkey PRIMARY KEY (revision),
    CONSTRAINT revocations_kind CHECK (kind IN ('user', 'login', 'api_token'))
);
CREATE INDEX revocations_revoke_time ON pgmoor.revocations (revoke_time);
GRANT SELECT, INSERT, DELETE ON pgmoor.revocations TO pgmoor_api;
GRANT SELECT ON pgmoor.revocations TO pgmoor_pooler, pgmoor_worker;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (1, 1);
