//! Roles of one's own making. The built-in ones are in the program.

use domain::access::PermissionSet;
use domain::id::RoleId;
use domain::name::DisplayName;
use sqlx::Connection as _;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::access::role_permissions;
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::etag::Etag;
use crate::page::{Cursor, Page, PageRequest};

/// A set of permissions with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomRole {
    /// The id.
    pub id: RoleId,
    /// What people call it. Unique.
    pub display_name: DisplayName,
    /// What it lets do.
    pub permissions: PermissionSet,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
}

/// Why a role was not made or changed.
#[derive(Debug, Error)]
pub enum RoleError {
    /// There is no such role.
    #[error("there is no such role")]
    NotFound,
    /// It changed since the etag was read.
    #[error("the role changed since the etag was read")]
    EtagMismatch,
    /// Another role has the name.
    #[error("another role has this name")]
    NameTaken,
    /// It is bound to somebody.
    #[error("the role is bound")]
    Bound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RoleError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("roles_display_name_key") => Self::NameTaken,
            Some("role_bindings_role_id") => Self::Bound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for RoleError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// The roles. Made by [`Store::roles`].
#[derive(Debug, Clone, Copy)]
pub struct Roles<'a> {
    store: &'a Store,
}

impl Store {
    /// The roles.
    #[must_use]
    pub fn roles(&self) -> Roles<'_> {
        Roles { store: self }
    }
}

impl Roles<'_> {
    /// Makes a role.
    ///
    /// # Errors
    /// [`RoleError::NameTaken`].
    pub async fn create(
        &self,
        id: RoleId,
        name: &DisplayName,
        permissions: PermissionSet,
    ) -> Result<CustomRole, RoleError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let row: RoleRow = sqlx::query_as(
            "INSERT INTO pgmoor.roles (id, display_name, permissions) VALUES ($1, $2, $3) \
             RETURNING id, display_name, permissions, version, create_time, update_time",
        )
        .bind(id.as_uuid())
        .bind(name.as_str())
        .bind(names(permissions))
        .fetch_one(&mut *tx)
        .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Reads a role.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: RoleId) -> Result<Option<CustomRole>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<RoleRow> = sqlx::query_as(
            "SELECT id, display_name, permissions, version, create_time, update_time FROM pgmoor.roles \
             WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(CustomRole::try_from).transpose()?)
    }

    /// Lists roles by name.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, page: &PageRequest) -> Result<Page<CustomRole>, StoreError> {
        let after = page.after.as_ref().map(Cursor::parts::<1>).transpose()?;
        let mut connection = self.store.acquire().await?;
        let rows: Vec<RoleRow> = sqlx::query_as(
            "SELECT id, display_name, permissions, version, create_time, update_time FROM pgmoor.roles \
             WHERE $1::text IS NULL OR display_name > $1 ORDER BY display_name LIMIT $2",
        )
        .bind(after.map(|[name]| name))
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let roles = rows.into_iter().map(CustomRole::try_from);
        let roles = roles.collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(roles, page.size, |role| {
            Cursor::of([role.display_name.to_string()])
        }))
    }

    /// Changes a role: what is `None` stays. It holds for everybody it is bound to.
    ///
    /// # Errors
    /// [`RoleError`] by cause.
    pub async fn update(
        &self,
        id: RoleId,
        name: Option<&DisplayName>,
        permissions: Option<PermissionSet>,
        etag: Option<&Etag>,
    ) -> Result<CustomRole, RoleError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        check(&mut tx, id, etag).await?;
        let row: RoleRow = sqlx::query_as(
            "UPDATE pgmoor.roles SET display_name = coalesce($2, display_name), \
             permissions = coalesce($3, permissions), version = version + 1, \
             update_time = clock_timestamp() WHERE id = $1 \
             RETURNING id, display_name, permissions, version, create_time, update_time",
        )
        .bind(id.as_uuid())
        .bind(name.map(DisplayName::as_str))
        .bind(permissions.map(names))
        .fetch_one(&mut *tx)
        .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Deletes a role that is bound to nobody.
    ///
    /// # Errors
    /// [`RoleError::Bound`] and the like.
    pub async fn delete(&self, id: RoleId, etag: Option<&Etag>) -> Result<(), RoleError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        check(&mut tx, id, etag).await?;
        sqlx::query("DELETE FROM pgmoor.roles WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn names(permissions: PermissionSet) -> Vec<&'static str> {
    permissions.iter().map(|permission| permission.as_str()).collect()
}

async fn check(tx: &mut sqlx::PgConnection, id: RoleId, etag: Option<&Etag>) -> Result<(), RoleError> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT version FROM pgmoor.roles WHERE id = $1 FOR UPDATE")
            .bind(id.as_uuid())
            .fetch_optional(tx)
            .await?;
    if Etag::allows(etag, version.ok_or(RoleError::NotFound)?) {
        Ok(())
    } else {
        Err(RoleError::EtagMismatch)
    }
}

#[derive(sqlx::FromRow)]
struct RoleRow {
    id: Uuid,
    display_name: String,
    permissions: Vec<String>,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
}

impl TryFrom<RoleRow> for CustomRole {
    type Error = Inconsistency;

    fn try_from(row: RoleRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("roles", column, row.id);
        Ok(Self {
            id: RoleId::from_uuid(row.id),
            display_name: row.display_name.parse().map_err(|_| wrong("display_name"))?,
            permissions: role_permissions(None, Some(&row.permissions)),
            create_time: row.create_time,
            update_time: row.update_time,
            etag: Etag::of(row.version),
        })
    }
}
