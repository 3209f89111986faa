//! Groups of users.
//!
//! Invariant: a membership has a source, and only who made it ends it: a user is in a group while any source says so.

use domain::id::{GroupId, UserId};
use domain::name::DisplayName;
use sqlx::Connection as _;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::access::{groups_of, role_permissions};
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::etag::Etag;
use crate::limits::{self, LimitReached};
use crate::page::{Cursor, Page, PageRequest};
use domain::access::{GRANTED, OWNED, PermissionSet, Role};

/// The source of memberships that people make.
pub const MANUAL: &str = "manual";

/// A number of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The id.
    pub id: GroupId,
    /// What people call it. Unique.
    pub display_name: DisplayName,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
}

/// A user's place in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The user.
    pub user: UserId,
    /// Their login name.
    pub username: String,
    /// Who says so: [`MANUAL`], or a provider's claims.
    pub sources: Vec<String>,
}

/// Why a group was not made.
#[derive(Debug, Error)]
pub enum CreateGroupError {
    /// Another group has the name.
    #[error("another group has this name")]
    NameTaken,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a group was not changed.
#[derive(Debug, Error)]
pub enum UpdateGroupError {
    /// There is no such group.
    #[error("there is no such group")]
    NotFound,
    /// There is no such user.
    #[error("there is no such user")]
    UserNotFound,
    /// It changed since the etag was read.
    #[error("the group changed since the etag was read")]
    EtagMismatch,
    /// Another group has the name.
    #[error("another group has this name")]
    NameTaken,
    /// It owns servers.
    #[error("the group owns servers")]
    OwnsServers,
    /// There are as many as there may be.
    #[error(transparent)]
    LimitReached(#[from] LimitReached),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CreateGroupError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("groups_display_name_key") => Self::NameTaken,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for CreateGroupError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

impl From<sqlx::Error> for UpdateGroupError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("groups_display_name_key") => Self::NameTaken,
            Some("servers_owner_group_id") => Self::OwnsServers,
            Some("group_members_group_id") => Self::NotFound,
            Some("group_members_user_id") => Self::UserNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for UpdateGroupError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// Whose groups are listed.
#[derive(Debug, Clone, Copy)]
pub enum GroupScope {
    /// All.
    All,
    /// Those a user is in.
    Of(UserId),
}

/// The groups. Made by [`Store::groups`].
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a> {
    store: &'a Store,
}

impl Store {
    /// The groups.
    #[must_use]
    pub fn groups(&self) -> Groups<'_> {
        Groups { store: self }
    }
}

impl Groups<'_> {
    /// Makes a group without members.
    ///
    /// # Errors
    /// [`CreateGroupError`] by cause.
    pub async fn create(&self, id: GroupId, name: &DisplayName) -> Result<Group, CreateGroupError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let row: GroupRow = sqlx::query_as(
            "INSERT INTO pgmoor.groups (id, display_name) VALUES ($1, $2) \
             RETURNING id, display_name, version, create_time, update_time",
        )
        .bind(id.as_uuid())
        .bind(name.as_str())
        .fetch_one(&mut *tx)
        .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Reads a group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: GroupId) -> Result<Option<Group>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<GroupRow> = sqlx::query_as(
            "SELECT id, display_name, version, create_time, update_time FROM pgmoor.groups WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Group::try_from).transpose()?)
    }

    /// Whether a user is in a group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_member(&self, id: GroupId, user: UserId) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "SELECT EXISTS (SELECT FROM pgmoor.group_members WHERE group_id = $1 AND user_id = $2)";
        Ok(sqlx::query_scalar(sql)
            .bind(id.as_uuid())
            .bind(user.as_uuid())
            .fetch_one(&mut *connection)
            .await?)
    }

    /// Lists groups by name.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, scope: GroupScope, page: &PageRequest) -> Result<Page<Group>, StoreError> {
        let after = page.after.as_ref().map(Cursor::parts::<1>).transpose()?;
        let user = match scope {
            GroupScope::All => None,
            GroupScope::Of(user) => Some(user.as_uuid()),
        };
        let mut connection = self.store.acquire().await?;
        let rows: Vec<GroupRow> = sqlx::query_as(concat!(
            "SELECT id, display_name, version, create_time, update_time FROM pgmoor.groups \
             WHERE ($1::uuid IS NULL OR id IN ",
            groups_of!("$1"),
            ") AND ($2::text IS NULL OR display_name > $2) ORDER BY display_name LIMIT $3"
        ))
        .bind(user)
        .bind(after.map(|[name]| name))
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let groups = rows
            .into_iter()
            .map(Group::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(groups, page.size, |group| {
            Cursor::of([group.display_name.to_string()])
        }))
    }

    /// Gives a group another name.
    ///
    /// # Errors
    /// [`UpdateGroupError`] by cause.
    pub async fn rename(
        &self,
        id: GroupId,
        name: &DisplayName,
        etag: Option<&Etag>,
    ) -> Result<Group, UpdateGroupError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        check(&mut tx, id, etag).await?;
        let row: GroupRow = sqlx::query_as(
            "UPDATE pgmoor.groups SET display_name = $2, version = version + 1, \
             update_time = clock_timestamp() WHERE id = $1 \
             RETURNING id, display_name, version, create_time, update_time",
        )
        .bind(id.as_uuid())
        .bind(name.as_str())
        .fetch_one(&mut *tx)
        .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Deletes a group, with what it was granted and bound to.
    ///
    /// # Errors
    /// [`UpdateGroupError::OwnsServers`] and the like.
    pub async fn delete(&self, id: GroupId, etag: Option<&Etag>) -> Result<(), UpdateGroupError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        check(&mut tx, id, etag).await?;
        sqlx::query("DELETE FROM pgmoor.groups WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Says of a source that a user is in a group. Again changes nothing.
    ///
    /// # Errors
    /// [`UpdateGroupError::NotFound`], [`UpdateGroupError::UserNotFound`].
    pub async fn add_member(&self, id: GroupId, user: UserId, source: &str) -> Result<(), UpdateGroupError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        limits::MEMBERS.lock(&mut tx, id.as_uuid()).await?;
        let added = sqlx::query(
            "INSERT INTO pgmoor.group_members (group_id, user_id, source) VALUES ($1, $2, $3) \
             ON CONFLICT ON CONSTRAINT group_members_pkey DO NOTHING",
        )
        .bind(id.as_uuid())
        .bind(user.as_uuid())
        .bind(source)
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() > 0 {
            limits::MEMBERS.check(&mut tx, id.as_uuid()).await??;
        }
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A source does not say any more that a user is in a group. False where it did not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_member(&self, id: GroupId, user: UserId, source: &str) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let done = sqlx::query(
            "DELETE FROM pgmoor.group_members WHERE group_id = $1 AND user_id = $2 AND source = $3",
        )
        .bind(id.as_uuid())
        .bind(user.as_uuid())
        .bind(source)
        .execute(&mut *tx)
        .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Lists who is in a group, by login name.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn members(&self, id: GroupId, page: &PageRequest) -> Result<Page<Membership>, StoreError> {
        let after = page.after.as_ref().map(Cursor::parts::<1>).transpose()?;
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, String, String, Vec<String>)> = sqlx::query_as(
            "SELECT u.id, u.username, u.username_key, array_agg(m.source ORDER BY m.source) \
             FROM pgmoor.group_members AS m JOIN pgmoor.users AS u ON u.id = m.user_id \
             WHERE m.group_id = $1 AND ($2::text IS NULL OR u.username_key > $2) \
             GROUP BY u.id, u.username, u.username_key ORDER BY u.username_key LIMIT $3",
        )
        .bind(id.as_uuid())
        .bind(after.map(|[key]| key))
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let page = Page::from_rows(rows, page.size, |(_, _, key, _)| Cursor::of([key.clone()]));
        let items = page
            .items
            .into_iter()
            .map(|(user, username, _, sources)| Membership {
                user: UserId::from_uuid(user),
                username,
                sources,
            });
        Ok(Page {
            items: items.collect(),
            next: page.next,
        })
    }

    /// All that who comes into the group gets by it, wherever.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn gives(&self, id: GroupId) -> Result<PermissionSet, StoreError> {
        let mut connection = self.store.acquire().await?;
        let (owns, granted): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pgmoor.servers WHERE owner_group_id = $1), \
             EXISTS (SELECT FROM pgmoor.server_grants WHERE group_id = $1)",
        )
        .bind(id.as_uuid())
        .fetch_one(&mut *connection)
        .await?;
        let roles: Vec<(Option<String>, Option<Vec<String>>)> = sqlx::query_as(
            "SELECT b.role_name, r.permissions FROM pgmoor.role_bindings AS b \
             LEFT JOIN pgmoor.roles AS r ON r.id = b.role_id WHERE b.group_id = $1",
        )
        .bind(id.as_uuid())
        .fetch_all(&mut *connection)
        .await?;
        let mut gives = PermissionSet::NONE;
        if owns {
            gives = gives.union(Role::Member.permissions()).union(OWNED);
        }
        if granted {
            gives = gives.union(GRANTED);
        }
        Ok(roles.iter().fold(gives, |gives, (name, permissions)| {
            gives.union(role_permissions(name.as_deref(), permissions.as_deref()))
        }))
    }
}

async fn check(
    tx: &mut sqlx::PgConnection,
    id: GroupId,
    etag: Option<&Etag>,
) -> Result<(), UpdateGroupError> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT version FROM pgmoor.groups WHERE id = $1 FOR UPDATE")
            .bind(id.as_uuid())
            .fetch_optional(tx)
            .await?;
    if Etag::allows(etag, version.ok_or(UpdateGroupError::NotFound)?) {
        Ok(())
    } else {
        Err(UpdateGroupError::EtagMismatch)
    }
}

#[derive(sqlx::FromRow)]
struct GroupRow {
    id: Uuid,
    display_name: String,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
}

impl TryFrom<GroupRow> for Group {
    type Error = Inconsistency;

    fn try_from(row: GroupRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("groups", column, row.id);
        Ok(Self {
            id: GroupId::from_uuid(row.id),
            display_name: row.display_name.parse().map_err(|_| wrong("display_name"))?,
            create_time: row.create_time,
            update_time: row.update_time,
            etag: Etag::of(row.version),
        })
    }
}
