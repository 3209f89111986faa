-- Sessions that may only read stay so wherever they go on.

ALTER TABLE pgmoor.sessions ADD COLUMN access text NOT NULL DEFAULT 'read_write';
ALTER TABLE pgmoor.sessions ADD CONSTRAINT sessions_access CHECK (access IN ('read_only', 'read_write')) NOT VALID;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (13, 1);
