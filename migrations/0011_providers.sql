-- Logging in through OpenID providers, service accounts, and what a login was begun with.

ALTER TABLE pgmoor.users
    ADD COLUMN kind text NOT NULL DEFAULT 'person',
    -- By which a person is invited: in lower case. A provider that says it is theirs, verified, may link to them.
    ADD COLUMN email text COLLATE "C",
    -- The provider whose groups made an administrator of the user; NULL where somebody did.
    ADD COLUMN administrator_provider text,
    ADD CONSTRAINT users_kind CHECK (kind IN ('person', 'service_account')),
    ADD CONSTRAINT users_email_length CHECK (octet_length(email) BETWEEN 3 AND 320),
    ADD CONSTRAINT users_service_account CHECK (kind = 'person' OR (password_hash IS NULL AND email IS NULL)),
    ADD CONSTRAINT users_administrator_provider CHECK (administrator_provider IS NULL OR administrator);
CREATE UNIQUE INDEX users_email_key ON pgmoor.users (email) WHERE email IS NOT NULL;

-- Who somebody is at a provider. Issuer and subject say it; nothing else does.
CREATE TABLE pgmoor.identities (
    issuer text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    user_id uuid NOT NULL,
    provider text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT identities_pkey PRIMARY KEY (issuer, subject),
    CONSTRAINT identities_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT identities_length CHECK (octet_length(issuer) <= 1024 AND octet_length(subject) <= 1024)
);
CREATE INDEX identities_user_id ON pgmoor.identities (user_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.identities TO pgmoor_api;

-- The groups a provider said a user is in, as it last said it.
CREATE TABLE pgmoor.identity_groups (
    user_id uuid NOT NULL,
    provider text NOT NULL,
    group_value text COLLATE "C" NOT NULL,
    -- The group of pgmoor that the configuration makes of it.
    group_name text,
    CONSTRAINT identity_groups_pkey PRIMARY KEY (user_id, provider, group_value),
    CONSTRAINT identity_groups_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.identity_groups TO pgmoor_api;

-- Logins at a provider that are under way.
CREATE TABLE pgmoor.login_attempts (
    id uuid NOT NULL,
    provider text NOT NULL,
    -- SHA-256 of the state with which the browser comes back; NULL for a login on another device.
    state_hash bytea,
    -- BASE64URL(SHA-256) of the secret of whoever began it (RFC 7636): only they collect the tokens.
    code_challenge text NOT NULL,
    confirmation_code text NOT NULL,
    -- Where the browser goes at the end: a port on the loopback of whoever began it.
    redirect_uri text,
    -- SHA-256 of the code that the browser carries there.
    redirect_code_hash bytea,
    -- What the provider's answer is checked with, or the device code. Encrypted with the login key.
    sealed bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    expire_time timestamptz NOT NULL,
    -- When the browser came back.
    claim_time timestamptz,
    -- Of a login on another device: when the provider may be asked again, and how often.
    next_poll_time timestamptz,
    poll_interval interval,
    wrong_verifiers integer NOT NULL DEFAULT 0,
    -- What came of it: a user, or a reason.
    user_id uuid,
    issuer text,
    subject text,
    provider_token bytea,
    failure text,
    CONSTRAINT login_attempts_pkey PRIMARY KEY (id),
    CONSTRAINT login_attempts_state_hash_key UNIQUE (state_hash),
    CONSTRAINT login_attempts_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT login_attempts_outcome CHECK (user_id IS NULL OR failure IS NULL)
);
CREATE INDEX login_attempts_expire_time ON pgmoor.login_attempts (expire_time);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.login_attempts TO pgmoor_api;

ALTER TABLE pgmoor.logins
    -- What it was begun with, as the client says, and from where.
    ADD COLUMN client_name text,
    ADD COLUMN address text,
    ADD COLUMN refresh_time timestamptz,
    -- Where somebody logged in, when it was at a provider.
    ADD COLUMN provider text,
    ADD COLUMN issuer text,
    ADD COLUMN subject text,
    -- The provider's refresh token, encrypted with the login key.
    ADD COLUMN provider_token bytea,
    -- When the provider was last asked, and when it last said that all is well.
    ADD COLUMN provider_check_time timestamptz,
    ADD COLUMN provider_confirm_time timestamptz,
    DROP CONSTRAINT logins_end_reason,
    ADD CONSTRAINT logins_end_reason
        CHECK (end_reason IN ('logout', 'reuse', 'password', 'disabled', 'revoked', 'provider'));

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (11, 1);
