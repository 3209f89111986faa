-- What was found of the roles that read-only sessions log in as: known to every pooler, and after each has died.

-- One row for a role in a database, as it was looked at last. Personal credentials are not here: who uses one is told by the
-- pooler that has their session.
CREATE TABLE pgmoor.inspections (
    server_id uuid NOT NULL,
    -- Whose credential the role logs in with.
    credential_kind text NOT NULL,
    username text NOT NULL,
    database_name text NOT NULL,
    -- The credential as of then: with another password it is looked anew.
    credential_id uuid NOT NULL,
    -- When the look began, by this database's clock.
    check_time timestamptz NOT NULL,
    -- What was let pass.
    trusted_functions text[] NOT NULL,
    allowed_databases text[] NOT NULL,
    -- How many rights go beyond the limit: without any it is enforced. Of these, some as {"code": …, "object": …}.
    read_only_count bigint NOT NULL,
    read_only_reasons jsonb NOT NULL,
    tenancy_count bigint NOT NULL,
    tenancy_reasons jsonb NOT NULL,
    CONSTRAINT inspections_pkey PRIMARY KEY (server_id, credential_kind, username, database_name),
    CONSTRAINT inspections_server_id FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT inspections_credential_kind CHECK (credential_kind IN ('shared', 'read_only')),
    CONSTRAINT inspections_counts CHECK (read_only_count >= 0 AND tenancy_count >= 0),
    CONSTRAINT inspections_reasons
        CHECK (jsonb_typeof(read_only_reasons) = 'array' AND jsonb_typeof(tenancy_reasons) = 'array')
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.inspections TO pgmoor_pooler;

-- Which databases a role may connect to is what its server's access policy says. What stands in the inspection policy is not read
-- any more, nor written: a later version drops it.
ALTER TABLE pgmoor.inspection_policies ALTER COLUMN allowed_databases SET DEFAULT '{}';

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (18, 1);
