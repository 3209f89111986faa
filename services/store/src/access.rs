//! What bears on what a user may do: bindings, grants, ownership, policies, read together.
//!
//! Invariant: every change of a role, a binding, a group, a grant, an elevation that holds, a policy or an owner takes the next revision of
//! `policy` in its transaction, and what is read here has the revision it was read at. So who compares revisions knows
//! whether a decision still stands.

use std::collections::{HashMap, HashSet};

use domain::access::{
    Bound, Elevation, Grant, GrantLimits, Ownership, PermissionSet, Role, RoleName, ServerFacts, ServerPolicy,
};
use domain::id::{ElevationId, GrantId, GroupId, RoleBindingId, RoleId, ServerId, UserId};
use serde::Deserialize;
use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError};

/// The groups of the user that the placeholder stands for.
macro_rules! groups_of {
    ($user:literal) => {
        concat!(
            "(SELECT m.group_id FROM pgmoor.group_members AS m WHERE m.user_id = ",
            $user,
            ")"
        )
    };
}

/// Whether the binding `b` is of the user.
macro_rules! bound_to {
    ($user:literal) => {
        concat!(
            "(b.user_id = ",
            $user,
            " OR b.group_id IN ",
            $crate::access::groups_of!($user),
            ")"
        )
    };
}

/// Whether the scope of the binding `b` holds the server `s`.
macro_rules! scope_holds {
    () => {
        "(b.scope = 'everywhere' OR b.scope = 'server' AND b.server_id = s.id \
         OR b.scope = 'server_group' AND b.server_group = s.group_name \
            AND CASE WHEN s.owner_group_id IS NULL THEN b.owner_id = s.owner_id \
                ELSE b.owner_group_id = s.owner_group_id END)"
    };
}

/// Whether the server `s` is the user's own.
macro_rules! owns {
    ($user:literal) => {
        concat!(
            "CASE WHEN s.owner_group_id IS NULL THEN s.owner_id = ",
            $user,
            " ELSE s.owner_group_id IN ",
            $crate::access::groups_of!($user),
            " END"
        )
    };
}

/// Whether the user owns the server `s`, or a role with the permission is bound to them there. It must be one that every
/// built-in role has.
macro_rules! governs {
    ($user:literal, $permission:literal) => {
        concat!(
            "(",
            $crate::access::owns!($user),
            " OR EXISTS (SELECT FROM pgmoor.role_bindings AS b \
                LEFT JOIN pgmoor.roles AS r ON r.id = b.role_id WHERE ",
            $crate::access::bound_to!($user),
            " AND ",
            $crate::access::scope_holds!(),
            " AND (b.role_name IS NOT NULL OR '",
            $permission,
            "' = ANY (r.permissions))))"
        )
    };
}

/// Whether the user may see the server `s`.
macro_rules! sees {
    ($user:literal) => {
        concat!(
            "(",
            $crate::access::governs!($user, "servers.read"),
            " OR EXISTS (SELECT FROM pgmoor.server_grants AS g WHERE g.server_id = s.id AND (g.user_id = ",
            $user,
            " OR g.group_id IN ",
            $crate::access::groups_of!($user),
            ") AND (g.expire_time IS NULL OR g.expire_time > clock_timestamp())))"
        )
    };
}

pub(crate) use {bound_to, governs, groups_of, owns, scope_holds, sees};

/// What bears on what users may do. Made by [`Store::access`].
#[derive(Debug, Clone, Copy)]
pub struct AccessRules<'a> {
    store: &'a Store,
}

impl Store {
    /// What bears on what users may do.
    #[must_use]
    pub fn access(&self) -> AccessRules<'_> {
        AccessRules { store: self }
    }
}

impl AccessRules<'_> {
    /// The revision of the last change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(Counter::Policy.current(&mut connection).await?)
    }

    /// What bears on what a user may do with a server. Nothing where one of the two is missing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn server_facts(
        &self,
        user: UserId,
        server: ServerId,
    ) -> Result<Option<ServerFacts>, StoreError> {
        let mut facts = self.all_server_facts(&[(user, server)]).await?;
        Ok(facts.remove(&(user, server)))
    }

    /// The same of many, as of one moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all_server_facts(
        &self,
        pairs: &[(UserId, ServerId)],
    ) -> Result<HashMap<(UserId, ServerId), ServerFacts>, StoreError> {
        let (users, servers): (Vec<Uuid>, Vec<Uuid>) = pairs
            .iter()
            .map(|(user, server)| (user.as_uuid(), server.as_uuid()))
            .unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<FactsRow> = sqlx::query_as(concat!(
            "SELECT u.id AS user_id, u.disabled, s.id AS server_id, s.owner_group_id, s.policy, ",
            owns!("u.id"),
            " AS owns, coalesce((SELECT jsonb_agg(jsonb_build_object('id', b.id, 'role_name', b.role_name, \
                'role_id', b.role_id, 'permissions', r.permissions) ORDER BY b.create_time, b.id) \
              FROM pgmoor.role_bindings AS b LEFT JOIN pgmoor.roles AS r ON r.id = b.role_id WHERE ",
            bound_to!("u.id"),
            " AND ",
            scope_holds!(),
            "), '[]') AS bindings, coalesce((SELECT jsonb_agg(jsonb_build_object('id', g.id, \
                'access', g.access, 'databases', g.databases, 'limits', g.limits, 'expires', \
                (extract(epoch FROM g.expire_time) * 1000000)::bigint) ORDER BY g.create_time, g.id) \
              FROM pgmoor.server_grants AS g \
              WHERE g.server_id = s.id AND (g.user_id = u.id OR g.group_id IN ",
            groups_of!("u.id"),
            ")), '[]') AS grants, \
             coalesce((SELECT jsonb_agg(jsonb_build_object('id', e.id, 'databases', e.databases, 'expires', \
                (extract(epoch FROM e.expire_time) * 1000000)::bigint) ORDER BY e.expire_time, e.id) \
              FROM pgmoor.elevations AS e WHERE e.server_id = s.id AND e.user_id = u.id \
              AND e.state = 'active'), '[]') AS elevations, \
             (SELECT c.revision FROM pgmoor.counters AS c WHERE c.name = 'policy') AS revision, clock_timestamp() AS read_time \
             FROM unnest($1::uuid[], $2::uuid[]) AS p (user_id, server_id) \
             JOIN pgmoor.users AS u ON u.id = p.user_id JOIN pgmoor.servers AS s ON s.id = p.server_id"
        ))
        .bind(users)
        .bind(servers)
        .fetch_all(&mut *connection)
        .await?;
        let facts = rows.into_iter().map(|row| {
            let server = ServerId::from_uuid(row.server_id);
            let facts = ServerFacts::try_from(row)?;
            Ok(((facts.user, server), facts))
        });
        facts.collect::<Result<_, Inconsistency>>().map_err(Into::into)
    }

    /// Which of these owners of servers that are gone could be ones still: who is not disabled, and where a group was the owner, is
    /// in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn still_owners(
        &self,
        owners: &[(UserId, Ownership)],
    ) -> Result<HashSet<(UserId, Ownership)>, StoreError> {
        let (users, groups): (Vec<Uuid>, Vec<Option<Uuid>>) = owners
            .iter()
            .filter_map(|(user, ownership)| match ownership {
                Ownership::None => None,
                Ownership::User => Some((user.as_uuid(), None)),
                Ownership::Group(group) => Some((user.as_uuid(), Some(group.as_uuid()))),
            })
            .unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, Option<Uuid>)> = sqlx::query_as(concat!(
            "SELECT p.user_id, p.group_id FROM unnest($1::uuid[], $2::uuid[]) AS p (user_id, group_id) \
             JOIN pgmoor.users AS u ON u.id = p.user_id AND NOT u.disabled \
             WHERE p.group_id IS NULL OR p.group_id IN ",
            groups_of!("u.id"),
        ))
        .bind(users)
        .bind(groups)
        .fetch_all(&mut *connection)
        .await?;
        let owners = rows.into_iter().map(|(user, group)| {
            let group = group.map(GroupId::from_uuid);
            (
                UserId::from_uuid(user),
                group.map_or(Ownership::User, Ownership::Group),
            )
        });
        Ok(owners.collect())
    }

    /// What the roles let users do that are bound to them or to their groups everywhere. Who has none is left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn everywhere(&self, users: &[UserId]) -> Result<HashMap<UserId, PermissionSet>, StoreError> {
        let users: Vec<Uuid> = users.iter().map(|user| user.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, Option<String>, Option<Vec<String>>)> = sqlx::query_as(concat!(
            "SELECT u.user_id, b.role_name, r.permissions FROM unnest($1::uuid[]) AS u (user_id) \
             JOIN pgmoor.role_bindings AS b ON b.scope = 'everywhere' AND ",
            bound_to!("u.user_id"),
            " LEFT JOIN pgmoor.roles AS r ON r.id = b.role_id"
        ))
        .bind(users)
        .fetch_all(&mut *connection)
        .await?;
        let mut everywhere: HashMap<UserId, PermissionSet> = HashMap::new();
        for (user, role, permissions) in rows {
            let more = role_permissions(role.as_deref(), permissions.as_deref());
            let of_user = everywhere.entry(UserId::from_uuid(user)).or_default();
            *of_user = of_user.union(more);
        }
        Ok(everywhere)
    }
}

/// The permissions of a role that is built in, or has these. What this version does not know gives nothing: a later one
/// may have more.
pub(crate) fn role_permissions(name: Option<&str>, permissions: Option<&[String]>) -> PermissionSet {
    let built_in = name.and_then(Role::named).map(Role::permissions);
    let own = permissions
        .into_iter()
        .flatten()
        .filter_map(|permission| permission.parse().ok())
        .collect();
    built_in.unwrap_or_default().union(own)
}

/// The name of a role; nothing where there is no such built-in role.
pub(crate) fn role_name(name: Option<&str>, id: Option<Uuid>) -> Option<RoleName> {
    match (name, id) {
        (Some(name), None) => Role::named(name).map(RoleName::BuiltIn),
        (None, Some(id)) => Some(RoleName::Custom(RoleId::from_uuid(id))),
        _ => None,
    }
}

#[derive(sqlx::FromRow)]
struct FactsRow {
    user_id: Uuid,
    disabled: bool,
    server_id: Uuid,
    owner_group_id: Option<Uuid>,
    policy: Json<Value>,
    owns: bool,
    bindings: Json<Vec<BoundRow>>,
    grants: Json<Vec<GrantedRow>>,
    elevations: Json<Vec<ElevatedRow>>,
    revision: i64,
    read_time: OffsetDateTime,
}

#[derive(Deserialize)]
struct BoundRow {
    id: Uuid,
    role_name: Option<String>,
    role_id: Option<Uuid>,
    permissions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct GrantedRow {
    id: Uuid,
    access: String,
    databases: Vec<String>,
    limits: Value,
    expires: Option<i64>,
}

#[derive(Deserialize)]
struct ElevatedRow {
    id: Uuid,
    databases: Vec<String>,
    expires: i64,
}

/// A point in time as it stands in what is aggregated.
fn time_of(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

impl TryFrom<FactsRow> for ServerFacts {
    type Error = Inconsistency;

    fn try_from(row: FactsRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("servers", column, row.server_id);
        let ownership = match (row.owns, row.owner_group_id) {
            (false, _) => Ownership::None,
            (true, None) => Ownership::User,
            (true, Some(group)) => Ownership::Group(GroupId::from_uuid(group)),
        };
        let bound = |bound: &BoundRow| {
            Some(Bound {
                id: RoleBindingId::from_uuid(bound.id),
                role: role_name(bound.role_name.as_deref(), bound.role_id)?,
                permissions: role_permissions(bound.role_name.as_deref(), bound.permissions.as_deref()),
            })
        };
        let grants = row.grants.0.into_iter().map(|grant| {
            let wrong = |column| Inconsistency::new("server_grants", column, grant.id);
            let databases = grant.databases.iter().map(|name| name.parse());
            Ok(Grant {
                id: GrantId::from_uuid(grant.id),
                access: grant.access.parse().map_err(|()| wrong("access"))?,
                databases: databases
                    .collect::<Result<_, _>>()
                    .map_err(|_| wrong("databases"))?,
                limits: GrantLimits::from_json(&grant.limits).ok_or_else(|| wrong("limits"))?,
                expire_time: match grant.expires {
                    None => None,
                    Some(micros) => Some(time_of(micros).ok_or_else(|| wrong("expire_time"))?),
                },
            })
        });
        let elevations = row.elevations.0.into_iter().map(|elevation| {
            let wrong = |column| Inconsistency::new("elevations", column, elevation.id);
            let databases = elevation.databases.iter().map(|name| name.parse());
            Ok(Elevation {
                id: ElevationId::from_uuid(elevation.id),
                databases: databases
                    .collect::<Result<_, _>>()
                    .map_err(|_| wrong("databases"))?,
                expire_time: time_of(elevation.expires).ok_or_else(|| wrong("expire_time"))?,
            })
        });
        Ok(Self {
            user: UserId::from_uuid(row.user_id),
            disabled: row.disabled,
            ownership,
            // A role that only a later version has gives nothing here.
            bindings: row.bindings.0.iter().filter_map(bound).collect(),
            grants: grants.collect::<Result<_, Inconsistency>>()?,
            elevations: elevations.collect::<Result<_, Inconsistency>>()?,
            policy: ServerPolicy::from_json(&row.policy.0).ok_or_else(|| wrong("policy"))?,
            revision: row.revision,
            read_time: row.read_time,
        })
    }
}
