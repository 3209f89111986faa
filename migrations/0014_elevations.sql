-- Elevations: a user may write for a while where they may only read, because another one let them.

CREATE TABLE pgmoor.elevations (
    id uuid NOT NULL,
    server_id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- Empty: all that the user may use there.
    databases text[] NOT NULL,
    reason text NOT NULL,
    duration_s bigint NOT NULL,
    -- The name of the session it was asked for; empty for none.
    session text NOT NULL,
    -- Those that are over by their expire_time are called expired when they are read; the audit trail is told once.
    state text NOT NULL DEFAULT 'requested',
    decided_by uuid,
    decide_time timestamptz,
    expire_time timestamptz NOT NULL,
    ended_by uuid,
    end_time timestamptz,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT elevations_pkey PRIMARY KEY (id),
    CONSTRAINT elevations_server_id FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT elevations_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT elevations_decided_by FOREIGN KEY (decided_by) REFERENCES pgmoor.users (id) ON DELETE SET NULL,
    CONSTRAINT elevations_ended_by FOREIGN KEY (ended_by) REFERENCES pgmoor.users (id) ON DELETE SET NULL,
    CONSTRAINT elevations_state CHECK (state IN ('requested', 'active', 'denied', 'ended', 'expired')),
    -- Nobody lets themselves write.
    CONSTRAINT elevations_approval CHECK (state <> 'active' OR decided_by <> user_id),
    CONSTRAINT elevations_reason_length CHECK (char_length(reason) BETWEEN 1 AND 1000),
    CONSTRAINT elevations_duration CHECK (duration_s BETWEEN 1 AND 86400)
);
CREATE INDEX elevations_list ON pgmoor.elevations (create_time, id);
CREATE INDEX elevations_server_id ON pgmoor.elevations (server_id, create_time, id);
CREATE INDEX elevations_open ON pgmoor.elevations (user_id, server_id) WHERE state IN ('requested', 'active');
CREATE INDEX elevations_expire_time ON pgmoor.elevations (expire_time) WHERE state IN ('requested', 'active');
CREATE INDEX elevations_update_time ON pgmoor.elevations (update_time) WHERE state IN ('denied', 'ended', 'expired');
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.elevations TO pgmoor_api;
GRANT SELECT (id, server_id, user_id, databases, state, expire_time) ON pgmoor.elevations TO pgmoor_pooler, pgmoor_worker;

-- The session may write while its owner is elevated. The version before leaves it read-only.
ALTER TABLE pgmoor.sessions ADD COLUMN follows_elevations boolean NOT NULL DEFAULT false;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (14, 1);
