-- From which network a login was begun: when there are as many as there may be, the network with most of them makes room.

ALTER TABLE pgmoor.login_attempts
    -- 24 bits of IPv4, 48 of IPv6; NULL where the address is not known.
    ADD COLUMN network text COLLATE "C";

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (20, 1);
