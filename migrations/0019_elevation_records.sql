-- An elevation that expired is a record of the audit trail, which is written a moment after the row changes. Until then the row
-- says so: whoever was to write the record may be gone.

ALTER TABLE pgmoor.elevations
    -- Until then the process that was told of the end has time to write the record; nothing once it is written.
    ADD COLUMN record_due timestamptz;
CREATE INDEX elevations_record_due ON pgmoor.elevations (record_due) WHERE record_due IS NOT NULL;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (19, 1);
