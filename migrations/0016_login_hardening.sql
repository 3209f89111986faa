-- Logins with a provider that wait for the word of their person, what a provider's word is good for, and sealed signing keys.

ALTER TABLE pgmoor.login_attempts
    -- What it was begun with, as the client says, and from where: the person is shown both.
    ADD COLUMN client_name text,
    ADD COLUMN address text,
    -- Whom the provider vouched for, until they say that the login is theirs. `user_id` is set then.
    ADD COLUMN admitted_user_id uuid,
    -- SHA-256 of what the browser says it with, together with its cookie.
    ADD COLUMN confirm_hash bytea,
    ADD CONSTRAINT login_attempts_admitted_user_id
        FOREIGN KEY (admitted_user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE;
CREATE UNIQUE INDEX login_attempts_confirm_hash_key ON pgmoor.login_attempts (confirm_hash)
    WHERE confirm_hash IS NOT NULL;

-- A private key is 32 bytes in clear, or 72 sealed with the login key: a nonce, the key, and a tag.
ALTER TABLE pgmoor.signing_keys
    DROP CONSTRAINT signing_keys_private_key_length,
    ADD CONSTRAINT signing_keys_private_key_length CHECK (octet_length(private_key) IN (32, 72)) NOT VALID;

-- Until when the API tokens of a user work, for want of a provider's word; NULL: for ever.
ALTER TABLE pgmoor.users ADD COLUMN vouch_expire_time timestamptz;
GRANT SELECT (vouch_expire_time) ON pgmoor.users TO pgmoor_pooler, pgmoor_worker;
UPDATE pgmoor.users AS u SET vouch_expire_time = clock_timestamp() + interval '30 days'
    WHERE password_hash IS NULL AND EXISTS (SELECT FROM pgmoor.identities AS i WHERE i.user_id = u.id);

-- When a provider was last in the configuration of an API instance: what it gave goes a while after it went.
CREATE TABLE pgmoor.known_providers (
    id text COLLATE "C" NOT NULL,
    seen_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT known_providers_pkey PRIMARY KEY (id),
    CONSTRAINT known_providers_id_length CHECK (char_length(id) BETWEEN 1 AND 200)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.known_providers TO pgmoor_api;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (16, 1);
