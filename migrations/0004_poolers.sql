-- Poolers and which of them owns an instance.

CREATE TABLE pgmoor.poolers (
    -- Small, because session ids and cancel keys carry it as a hint.
    pooler_id smallint NOT NULL,
    -- The process, from start to exit.
    incarnation uuid NOT NULL,
    -- Where it serves the internal protocol: `host:port`.
    address text NOT NULL,
    -- Where it serves PostgreSQL's own protocol, if it does.
    wire_address text,
    state text NOT NULL DEFAULT 'serving',
    -- The versions of the internal protocol it speaks.
    protocol_min integer NOT NULL,
    protocol_max integer NOT NULL,
    lease_until timestamptz NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT poolers_pkey PRIMARY KEY (pooler_id),
    CONSTRAINT poolers_incarnation_key UNIQUE (incarnation),
    CONSTRAINT poolers_pooler_id CHECK (pooler_id > 0),
    CONSTRAINT poolers_state CHECK (state IN ('serving', 'draining')),
    CONSTRAINT poolers_protocol CHECK (protocol_min BETWEEN 1 AND protocol_max)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.poolers TO pgmoor_pooler;
GRANT SELECT ON pgmoor.poolers TO pgmoor_api, pgmoor_worker;

CREATE TABLE pgmoor.instance_owners (
    instance_id uuid NOT NULL,
    pooler_id smallint NOT NULL,
    incarnation uuid NOT NULL,
    -- One ownership, from claim to release or takeover. It only grows.
    term bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    -- Given back: the next owner need not ask this one.
    released boolean NOT NULL DEFAULT false,
    CONSTRAINT instance_owners_pkey PRIMARY KEY (instance_id),
    CONSTRAINT instance_owners_instance_id
        FOREIGN KEY (instance_id) REFERENCES pgmoor.instances (id) ON DELETE CASCADE,
    CONSTRAINT instance_owners_term CHECK (term > 0)
);
CREATE INDEX instance_owners_incarnation ON pgmoor.instance_owners (incarnation);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.instance_owners TO pgmoor_pooler;
GRANT SELECT ON pgmoor.instance_owners TO pgmoor_api, pgmoor_worker;

-- On which timeline this database was last seen, and since when: a promoted standby may lack the last renewals, so nobody is
-- believed to be gone before one lease has passed on it (PostgreSQL manual, 26.3.6).
CREATE TABLE pgmoor.primary_timeline (
    singleton boolean NOT NULL DEFAULT true,
    timeline text NOT NULL,
    since timestamptz NOT NULL,
    CONSTRAINT primary_timeline_pkey PRIMARY KEY (singleton),
    CONSTRAINT primary_timeline_singleton CHECK (singleton)
);
GRANT SELECT, INSERT, UPDATE ON pgmoor.primary_timeline TO pgmoor_pooler;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (4, 1);
