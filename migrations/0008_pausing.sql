-- PAUSE of an instance: whoever owns it gives its backends to nobody until it is resumed.

ALTER TABLE pgmoor.instances ADD COLUMN pause_time timestamptz;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (8, 1);
