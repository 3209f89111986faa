-- Groups, roles and to whom they are bound, grants on servers, and what servers allow.

INSERT INTO pgmoor.counters (name) VALUES ('policy');

CREATE TABLE pgmoor.groups (
    id uuid NOT NULL,
    display_name text COLLATE "C" NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT groups_pkey PRIMARY KEY (id),
    CONSTRAINT groups_display_name_key UNIQUE (display_name),
    CONSTRAINT groups_display_name_length CHECK (char_length(display_name) BETWEEN 1 AND 200)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.groups TO pgmoor_api;
GRANT SELECT ON pgmoor.groups TO pgmoor_pooler, pgmoor_worker;

-- A membership has a source: who made it is who may end it. A user may be in a group by several.
CREATE TABLE pgmoor.group_members (
    group_id uuid NOT NULL,
    user_id uuid NOT NULL,
    source text COLLATE "C" NOT NULL DEFAULT 'manual',
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT group_members_pkey PRIMARY KEY (group_id, user_id, source),
    CONSTRAINT group_members_group_id FOREIGN KEY (group_id) REFERENCES pgmoor.groups (id) ON DELETE CASCADE,
    CONSTRAINT group_members_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT group_members_source_length CHECK (char_length(source) BETWEEN 1 AND 200)
);
CREATE INDEX group_members_user_id ON pgmoor.group_members (user_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.group_members TO pgmoor_api;
GRANT SELECT ON pgmoor.group_members TO pgmoor_pooler, pgmoor_worker;

-- Roles of one's own making. The built-in ones are the program's.
CREATE TABLE pgmoor.roles (
    id uuid NOT NULL,
    display_name text COLLATE "C" NOT NULL,
    permissions text[] NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT roles_pkey PRIMARY KEY (id),
    CONSTRAINT roles_display_name_key UNIQUE (display_name),
    CONSTRAINT roles_display_name_length CHECK (char_length(display_name) BETWEEN 1 AND 200)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.roles TO pgmoor_api;
GRANT SELECT ON pgmoor.roles TO pgmoor_pooler, pgmoor_worker;

CREATE TABLE pgmoor.role_bindings (
    id uuid NOT NULL,
    -- A built-in role by its name, or one of our own.
    role_name text COLLATE "C",
    role_id uuid,
    user_id uuid,
    group_id uuid,
    -- Everywhere, on the servers that an owner has in a group of theirs, or on one server.
    scope text NOT NULL,
    owner_id uuid,
    owner_group_id uuid,
    server_group text COLLATE "C",
    server_id uuid,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT role_bindings_pkey PRIMARY KEY (id),
    CONSTRAINT role_bindings_role_id FOREIGN KEY (role_id) REFERENCES pgmoor.roles (id),
    CONSTRAINT role_bindings_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT role_bindings_group_id FOREIGN KEY (group_id) REFERENCES pgmoor.groups (id) ON DELETE CASCADE,
    CONSTRAINT role_bindings_owner_id FOREIGN KEY (owner_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT role_bindings_owner_group_id FOREIGN KEY (owner_group_id) REFERENCES pgmoor.groups (id) ON DELETE CASCADE,
    CONSTRAINT role_bindings_server_id FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT role_bindings_role CHECK (num_nonnulls(role_name, role_id) = 1),
    CONSTRAINT role_bindings_member CHECK (num_nonnulls(user_id, group_id) = 1),
    CONSTRAINT role_bindings_scope CHECK (CASE scope
        WHEN 'everywhere' THEN num_nonnulls(owner_id, owner_group_id, server_group, server_id) = 0
        WHEN 'server_group' THEN
            num_nonnulls(owner_id, owner_group_id) = 1 AND server_group IS NOT NULL AND server_id IS NULL
        WHEN 'server' THEN server_id IS NOT NULL AND num_nonnulls(owner_id, owner_group_id, server_group) = 0
        ELSE false END)
);
CREATE INDEX role_bindings_user_id ON pgmoor.role_bindings (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX role_bindings_group_id ON pgmoor.role_bindings (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX role_bindings_role_id ON pgmoor.role_bindings (role_id) WHERE role_id IS NOT NULL;
CREATE INDEX role_bindings_server_id ON pgmoor.role_bindings (server_id) WHERE server_id IS NOT NULL;
CREATE INDEX role_bindings_list ON pgmoor.role_bindings (create_time, id);
GRANT SELECT, INSERT, DELETE ON pgmoor.role_bindings TO pgmoor_api;
GRANT SELECT ON pgmoor.role_bindings TO pgmoor_pooler, pgmoor_worker;

-- A share in the use of a server.
CREATE TABLE pgmoor.server_grants (
    id uuid NOT NULL,
    server_id uuid NOT NULL,
    user_id uuid,
    group_id uuid,
    access text NOT NULL,
    -- Empty: all that the server's policy allows.
    databases text[] NOT NULL DEFAULT '{}',
    -- {"<limit>": number}, times in milliseconds.
    limits jsonb NOT NULL DEFAULT '{}',
    expire_time timestamptz,
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT server_grants_pkey PRIMARY KEY (id),
    CONSTRAINT server_grants_server_id FOREIGN KEY (server_id) REFERENCES pgmoor.servers (id) ON DELETE CASCADE,
    CONSTRAINT server_grants_user_id FOREIGN KEY (user_id) REFERENCES pgmoor.users (id) ON DELETE CASCADE,
    CONSTRAINT server_grants_group_id FOREIGN KEY (group_id) REFERENCES pgmoor.groups (id) ON DELETE CASCADE,
    CONSTRAINT server_grants_member CHECK (num_nonnulls(user_id, group_id) = 1),
    CONSTRAINT server_grants_access CHECK (access IN ('read_only', 'read_write')),
    CONSTRAINT server_grants_limits CHECK (jsonb_typeof(limits) = 'object')
);
CREATE INDEX server_grants_list ON pgmoor.server_grants (server_id, create_time, id);
CREATE INDEX server_grants_user_id ON pgmoor.server_grants (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX server_grants_group_id ON pgmoor.server_grants (group_id) WHERE group_id IS NOT NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmoor.server_grants TO pgmoor_api;
GRANT SELECT ON pgmoor.server_grants TO pgmoor_pooler, pgmoor_worker;

-- What a server allows, whoever asks. What is not there has its default.
ALTER TABLE pgmoor.servers ADD COLUMN policy jsonb NOT NULL DEFAULT '{}';
ALTER TABLE pgmoor.servers ADD CONSTRAINT servers_policy CHECK (jsonb_typeof(policy) = 'object');
-- The group that owns the server. `owner_id` is then who handed it over, which the version before takes for its owner.
ALTER TABLE pgmoor.servers ADD COLUMN owner_group_id uuid;
ALTER TABLE pgmoor.servers
    ADD CONSTRAINT servers_owner_group_id FOREIGN KEY (owner_group_id) REFERENCES pgmoor.groups (id);
CREATE INDEX servers_owner_group_id ON pgmoor.servers (owner_group_id) WHERE owner_group_id IS NOT NULL;

-- A name is unique among what one owner has, a user or a group. The program knows the violation by the name it had.
ALTER TABLE pgmoor.servers DROP CONSTRAINT servers_name_key;
CREATE UNIQUE INDEX servers_name_key ON pgmoor.servers (owner_id, group_name, display_name)
    WHERE owner_group_id IS NULL;
CREATE UNIQUE INDEX servers_group_name_key ON pgmoor.servers (owner_group_id, group_name, display_name)
    WHERE owner_group_id IS NOT NULL;

INSERT INTO pgmoor.schema_compatibility (version, min_compatible) VALUES (10, 1);
