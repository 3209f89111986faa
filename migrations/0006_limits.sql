-- Limits of an instance beside its budget: how its backends are pooled, and how long anything may take.

-- {"<limit>": number}, times in milliseconds. What is not there has its default.
ALTER TABLE pgmoor.instances ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
ALTER TABLE pgmoor.instances ADD CONSTRAINT instances_limits CHECK (jsonb_typeof(limits) = 'object');

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (6, 1);
