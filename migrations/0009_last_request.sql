-- The request id of a session's last execution goes with the session, so that a request that is repeated after the session
-- moved is not run again.

ALTER TABLE pgmoor.sessions ADD COLUMN last_request uuid;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (9, 1);
