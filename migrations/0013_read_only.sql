-- Sessions that may only read stay so wherever they go on. What the inspection of a server's role lets pass.

ALTER TABLE pgmoor.sessions ADD COLUMN access text NOT NULL DEFAULT 'read_write';
ALTER TABLE pgmoor.sessions ADD CONSTRAINT sessions_access CHECK (access IN ('read_only', 'read_write')) NOT VALID;

-- Of servers without a row nothing is trusted.
CREATE TABLE pgmoor.inspection_policies (
    server_id uuid NOT NULL,
    -- Signatures, or `extension:NAME`.
    trusted_functions text[] NOT NULL,
    -- Empty: the server's maintenance database.
    allowed_databases text[] NOT NULL,
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inspection_policies_pkey PRIMARY KEY (server_id),
    CONSTRAINT inspection_policies_server_id
        FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE
);
GRANT SELECT, INSERT, UPDATE ON pgmoor.inspection_policies TO pgmoor_api;
GRANT SELECT ON pgmoor.inspection_policies TO pgmoor_pooler;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (13, 1);
