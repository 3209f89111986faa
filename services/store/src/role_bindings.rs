//! To whom roles are bound, and where.

use domain::access::{Principal, RoleName, Scope};
use domain::id::{GroupId, RoleBindingId, ServerId, UserId};
use sqlx::Connection as _;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::access::role_name;
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::limits::{self, LimitReached};
use crate::page::{Cursor, Page, PageRequest};

/// A role, bound to a user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleBinding {
    /// The id.
    pub id: RoleBindingId,
    /// The role.
    pub role: RoleName,
    /// To whom.
    pub member: Principal,
    /// Where.
    pub scope: Scope,
    /// When it was made.
    pub create_time: OffsetDateTime,
}

/// A binding to make.
#[derive(Debug, Clone)]
pub struct NewRoleBinding {
    /// The id.
    pub id: RoleBindingId,
    /// The role.
    pub role: RoleName,
    /// To whom.
    pub member: Principal,
    /// Where.
    pub scope: Scope,
}

/// Which bindings are listed. What is `None` does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoleBindingFilter {
    /// Of this role.
    pub role: Option<RoleName>,
    /// To this user or group itself.
    pub member: Option<Principal>,
    /// On this server itself.
    pub server: Option<ServerId>,
}

/// Why a role was not bound.
#[derive(Debug, Error)]
pub enum BindRoleError {
    /// There is no such role.
    #[error("there is no such role")]
    RoleNotFound,
    /// There is no such user or group.
    #[error("there is no such user or group")]
    MemberNotFound,
    /// There is no such server or owner.
    #[error("there is no such server or owner of servers")]
    ScopeNotFound,
    /// There are as many as there may be.
    #[error(transparent)]
    LimitReached(#[from] LimitReached),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for BindRoleError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("role_bindings_role_id") => Self::RoleNotFound,
            Some("role_bindings_user_id" | "role_bindings_group_id") => Self::MemberNotFound,
            Some("role_bindings_owner_id" | "role_bindings_owner_group_id" | "role_bindings_server_id") => {
                Self::ScopeNotFound
            }
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for BindRoleError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// The bindings. Made by [`Store::role_bindings`].
#[derive(Debug, Clone, Copy)]
pub struct RoleBindings<'a> {
    store: &'a Store,
}

impl Store {
    /// The bindings of roles.
    #[must_use]
    pub fn role_bindings(&self) -> RoleBindings<'_> {
        RoleBindings { store: self }
    }
}

/// The columns of [`RoleBindingRow`].
macro_rules! columns {
    () => {
        "id, role_name, role_id, user_id, group_id, scope, owner_id, owner_group_id, server_group, server_id, \
         create_time"
    };
}

impl RoleBindings<'_> {
    /// Binds a role.
    ///
    /// # Errors
    /// [`BindRoleError`] by cause.
    pub async fn create(&self, new: &NewRoleBinding) -> Result<RoleBinding, BindRoleError> {
        let (role_name, role_id) = match new.role {
            RoleName::BuiltIn(role) => (Some(role.as_str()), None),
            RoleName::Custom(role) => (None, Some(role.as_uuid())),
        };
        let (scope, owner, group, server) = match &new.scope {
            Scope::Everywhere => ("everywhere", None, None, None),
            Scope::ServerGroup { owner, group } => ("server_group", Some(*owner), Some(group.as_str()), None),
            Scope::Server(server) => ("server", None, None, Some(server.as_uuid())),
        };
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let (limit, member) = match new.member {
            Principal::User(user) => (limits::USER_BINDINGS, user.as_uuid()),
            Principal::Group(group) => (limits::GROUP_BINDINGS, group.as_uuid()),
        };
        limit.lock(&mut tx, member).await?;
        let row: RoleBindingRow = sqlx::query_as(concat!(
            "INSERT INTO pgmoor.role_bindings (id, role_name, role_id, user_id, group_id, scope, owner_id, \
             owner_group_id, server_group, server_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             RETURNING ",
            columns!()
        ))
        .bind(new.id.as_uuid())
        .bind(role_name)
        .bind(role_id)
        .bind(new.member.user().map(UserId::as_uuid))
        .bind(new.member.group().map(GroupId::as_uuid))
        .bind(scope)
        .bind(owner.and_then(Principal::user).map(UserId::as_uuid))
        .bind(owner.and_then(Principal::group).map(GroupId::as_uuid))
        .bind(group)
        .bind(server)
        .fetch_one(&mut *tx)
        .await?;
        limit.check(&mut tx, member).await??;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Reads a binding.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: RoleBindingId) -> Result<Option<RoleBinding>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<RoleBindingRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.role_bindings WHERE id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(RoleBinding::try_from).transpose()?)
    }

    /// Lists bindings, oldest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(
        &self,
        filter: &RoleBindingFilter,
        page: &PageRequest,
    ) -> Result<Page<RoleBinding>, StoreError> {
        let (after_time, after_id) = page.after.as_ref().map(Cursor::time_and_id).transpose()?.unzip();
        let (role_name, role_id) = match filter.role {
            Some(RoleName::BuiltIn(role)) => (Some(role.as_str()), None),
            Some(RoleName::Custom(role)) => (None, Some(role.as_uuid())),
            None => (None, None),
        };
        let mut connection = self.store.acquire().await?;
        let rows: Vec<RoleBindingRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.role_bindings WHERE ($1::text IS NULL OR role_name = $1) \
             AND ($2::uuid IS NULL OR role_id = $2) AND ($3::uuid IS NULL OR user_id = $3) \
             AND ($4::uuid IS NULL OR group_id = $4) AND ($5::uuid IS NULL OR server_id = $5) \
             AND ($6::timestamptz IS NULL OR (create_time, id) > ($6, $7)) \
             ORDER BY create_time, id LIMIT $8"
        ))
        .bind(role_name)
        .bind(role_id)
        .bind(filter.member.and_then(Principal::user).map(UserId::as_uuid))
        .bind(filter.member.and_then(Principal::group).map(GroupId::as_uuid))
        .bind(filter.server.map(ServerId::as_uuid))
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let bindings = rows.into_iter().map(RoleBinding::try_from);
        let bindings = bindings.collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(bindings, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Takes a role away again. False where there is no such binding.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, id: RoleBindingId) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let done = sqlx::query("DELETE FROM pgmoor.role_bindings WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

#[derive(sqlx::FromRow)]
struct RoleBindingRow {
    id: Uuid,
    role_name: Option<String>,
    role_id: Option<Uuid>,
    user_id: Option<Uuid>,
    group_id: Option<Uuid>,
    scope: String,
    owner_id: Option<Uuid>,
    owner_group_id: Option<Uuid>,
    server_group: Option<String>,
    server_id: Option<Uuid>,
    create_time: OffsetDateTime,
}

/// The one of the two that is there.
pub(crate) fn principal(user: Option<Uuid>, group: Option<Uuid>) -> Option<Principal> {
    match (user, group) {
        (Some(user), None) => Some(Principal::User(UserId::from_uuid(user))),
        (None, Some(group)) => Some(Principal::Group(GroupId::from_uuid(group))),
        _ => None,
    }
}

impl TryFrom<RoleBindingRow> for RoleBinding {
    type Error = Inconsistency;

    fn try_from(row: RoleBindingRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("role_bindings", column, row.id);
        let scope = match (row.scope.as_str(), row.server_id) {
            ("everywhere", None) => Scope::Everywhere,
            ("server", Some(server)) => Scope::Server(ServerId::from_uuid(server)),
            ("server_group", None) => Scope::ServerGroup {
                owner: principal(row.owner_id, row.owner_group_id).ok_or_else(|| wrong("owner_id"))?,
                group: row
                    .server_group
                    .and_then(|group| group.parse().ok())
                    .ok_or_else(|| wrong("server_group"))?,
            },
            _ => return Err(wrong("scope")),
        };
        Ok(Self {
            id: RoleBindingId::from_uuid(row.id),
            role: role_name(row.role_name.as_deref(), row.role_id).ok_or_else(|| wrong("role_name"))?,
            member: principal(row.user_id, row.group_id).ok_or_else(|| wrong("user_id"))?,
            scope,
            create_time: row.create_time,
        })
    }
}
