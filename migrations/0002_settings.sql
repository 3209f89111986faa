-- Settings in layers: the administrator's defaults and each user's own.

CREATE TABLE pgmoor.settings_layers (
    -- `defaults`, or the user's id.
    layer text COLLATE "C" NOT NULL,
    user_id uuid,
    -- That of the last change; the layer's etag.
    revision bigint NOT NULL DEFAULT 0,
    CONSTRAINT settings_layers_pkey PRIMARY KEY (layer),
    CONSTRAINT settings_layers_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT settings_layers_layer CHECK (layer = coalesce(user_id::text, 'defaults'))
);
CREATE UNIQUE INDEX settings_layers_user_id ON pgmoor.settings_layers (user_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.settings_layers TO pgmoor_api;

CREATE TABLE pgmoor.settings (
    layer text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- NULL where the value was taken out: a watcher must hear of it.
    value jsonb,
    revision bigint NOT NULL,
    CONSTRAINT settings_pkey PRIMARY KEY (layer, name),
    CONSTRAINT settings_layer FOREIGN KEY (layer) REFERENCES pgmoor.settings_layers (layer) ON DELETE CASCADE
);
CREATE INDEX settings_revision ON pgmoor.settings (layer, revision);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.settings TO pgmoor_api;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (2, 1);
