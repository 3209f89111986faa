//! Servers: users' registrations of instances, and the sealed passwords they log in with.
//!
//! Invariant: a password belongs to the destination and role it was sealed for. A change of either deletes it
//! in the same transaction, so that nobody can have a password sent elsewhere. Those with a role of their own belong to the
//! destination alone.

mod credential;
mod import;
mod policy;
mod role_credential;
mod row;

use domain::access::{Principal, ServerPolicy};
use domain::endpoint::Destination;
use domain::id::{GroupId, InstanceId, OperationId, ServerId, UserId};
use domain::name::{DisplayName, Identifier};
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::sees;
use crate::counter::Counter;
use crate::destination::DestinationRow;
use crate::error::{Inconsistency, StoreError, store_variant, violated_constraint};
use crate::etag::Etag;
use crate::page::{Cursor, Page, PageRequest};
use crate::{Store, instances, operations};

use row::ServerRow;

pub use credential::{Credential, Credentials, NewCredential, SetCredentialError};
pub use import::{ImportMode, ImportOutcome, ImportServerError, Imported};
pub use rewrap::SealedFor;
pub use role_credential::{NewRoleCredential, RoleCredential};

/// How often a change is tried again that met the merge of its instance into another one.
const ATTEMPTS: usize = 3;

/// A registration of an instance by a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The id.
    pub id: ServerId,
    /// Whose it is, or who handed it over to the group that owns it.
    pub owner_id: UserId,
    /// The group that owns it, if one does.
    pub owner_group: Option<GroupId>,
    /// What it allows.
    pub policy: ServerPolicy,
    /// The group it stands in.
    pub group: DisplayName,
    /// What its owner calls it. Unique within owner and group.
    pub display_name: DisplayName,
    /// The instance.
    pub instance_id: InstanceId,
    /// Where connections go and what they demand of TLS.
    pub destination: Destination,
    /// The database that is used when none is named.
    pub maintenance_database: Identifier,
    /// The PostgreSQL role to log in as.
    pub username: Identifier,
    /// Free text.
    pub comment: String,
    /// True while a password is stored for this destination and role.
    pub has_password: bool,
    /// The role of the read-only credential that is stored for this destination.
    pub read_only_role: Option<Identifier>,
    /// When it was registered.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
}

impl Server {
    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Principal {
        match self.owner_group {
            Some(group) => Principal::Group(group),
            None => Principal::User(self.owner_id),
        }
    }
}

/// A server to register.
#[derive(Debug, Clone)]
pub struct NewServer {
    /// The id.
    pub id: ServerId,
    /// Whose it is.
    pub owner_id: UserId,
    /// The group it stands in.
    pub group: DisplayName,
    /// What its owner calls it.
    pub display_name: DisplayName,
    /// Where connections go. Leads to an instance, which is made where there is none.
    pub destination: Destination,
    /// The database that is used when none is named.
    pub maintenance_database: Identifier,
    /// The PostgreSQL role to log in as.
    pub username: Identifier,
    /// Free text, up to 1024 characters.
    pub comment: String,
}

/// A change of a server: what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct ServerChange {
    /// The group.
    pub group: Option<DisplayName>,
    /// The display name.
    pub display_name: Option<DisplayName>,
    /// Where connections go. Another one voids the password.
    pub destination: Option<Destination>,
    /// The maintenance database.
    pub maintenance_database: Option<Identifier>,
    /// The PostgreSQL role. Another one voids the password.
    pub username: Option<Identifier>,
    /// The comment.
    pub comment: Option<String>,
    /// Whose it is.
    pub owner: Option<Principal>,
    /// The etag as read before; `None` to change whatever is there.
    pub etag: Option<Etag>,
}

/// Why a server was not registered.
#[derive(Debug, Error)]
pub enum CreateServerError {
    /// The owner has a server of that name in that group.
    #[error("the owner has a server of that name in that group")]
    NameTaken,
    /// There is no such user.
    #[error("there is no such user")]
    OwnerNotFound,
    /// The password is sealed to a key that is not known.
    #[error("the sealing key is not known")]
    SealingKeyUnknown,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a server was not changed.
#[derive(Debug, Error)]
pub enum UpdateServerError {
    /// There is no such server.
    #[error("there is no such server")]
    NotFound,
    /// The server changed since the etag was read.
    #[error("the server changed since the etag was read")]
    EtagMismatch,
    /// The owner has another server of that name in that group.
    #[error("the owner has a server of that name in that group")]
    NameTaken,
    /// There is no such user or group.
    #[error("there is no such user or group")]
    OwnerNotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a server was not forgotten.
#[derive(Debug, Error)]
pub enum DeleteServerError {
    /// There is no such server.
    #[error("there is no such server")]
    NotFound,
    /// The server changed since the etag was read.
    #[error("the server changed since the etag was read")]
    EtagMismatch,
    /// Operations of the server have not ended.
    #[error("operations of the server have not ended")]
    InUse {
        /// The operations.
        operations: Vec<OperationId>,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(DeleteServerError);

impl From<sqlx::Error> for CreateServerError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("servers_name_key" | "servers_group_name_key") => Self::NameTaken,
            Some("servers_owner_id") => Self::OwnerNotFound,
            Some("credentials_key_id") => Self::SealingKeyUnknown,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for CreateServerError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

impl From<sqlx::Error> for UpdateServerError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("servers_name_key" | "servers_group_name_key") => Self::NameTaken,
            Some("servers_owner_id" | "servers_owner_group_id") => Self::OwnerNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for UpdateServerError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// The columns of [`ServerRow`], of a table with the alias `s`.
macro_rules! columns {
    () => {
        "s.id, s.owner_id, s.owner_group_id, s.policy, s.group_name, s.display_name, s.instance_id, s.endpoints, s.tls_mode, \
         s.root_certificates, \
         s.maintenance_database, s.username, s.comment, s.version, s.create_time, s.update_time, \
         EXISTS (SELECT FROM pgmoor.credentials AS c WHERE c.server_id = s.id) AS has_password, \
         (SELECT r.role_name FROM pgmoor.role_credentials AS r \
          WHERE r.server_id = s.id AND r.kind = 'read_only') AS read_only_role"
    };
}

// After the macro, which it uses.
mod rewrap;

/// The servers. Made by [`Store::servers`].
#[derive(Debug, Clone, Copy)]
pub struct Servers<'a> {
    store: &'a Store,
}

impl Store {
    /// The servers.
    #[must_use]
    pub fn servers(&self) -> Servers<'_> {
        Servers { store: self }
    }
}

impl Servers<'_> {
    /// Registers a server, with its password if it has one.
    ///
    /// # Errors
    /// [`CreateServerError`] by cause.
    pub async fn create(
        &self,
        new: &NewServer,
        credential: Option<&NewCredential>,
    ) -> Result<Server, CreateServerError> {
        let mut connection = self.store.acquire().await?;
        let mut attempt = 1;
        loop {
            let mut tx = connection.begin().await?;
            match insert(&mut tx, new).await {
                Err(error) if attempt < ATTEMPTS && meets_a_merge(&error) => {
                    attempt += 1;
                    continue;
                }
                inserted => inserted?,
            }
            if let Some(credential) = credential {
                credential::insert(&mut tx, new.id, credential).await?;
            }
            let row = read(&mut tx, new.id).await?;
            tx.commit().await?;
            return Ok(row.try_into()?);
        }
    }

    /// Reads a server.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: ServerId) -> Result<Option<Server>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<ServerRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.servers AS s WHERE s.id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Server::try_from).transpose()?)
    }

    /// Lists the servers a user may see, by group and display name.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, user: UserId, page: &PageRequest) -> Result<Page<Server>, StoreError> {
        let after = page.after.as_ref().map(Cursor::parts::<3>).transpose()?;
        let after = after.map(|[group, name, id]| {
            let id = Uuid::try_parse(&id).map_err(|_| StoreError::InvalidCursor)?;
            Ok::<_, StoreError>((group, name, id))
        });
        let (after_group, after_name, after_id) = match after.transpose()? {
            Some((group, name, id)) => (Some(group), Some(name), Some(id)),
            None => (None, None, None),
        };
        let mut connection = self.store.acquire().await?;
        let rows: Vec<ServerRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.servers AS s WHERE ",
            sees!("$1"),
            " AND ($2::text IS NULL OR (s.group_name, s.display_name, s.id) > ($2, $3, $4)) \
             ORDER BY s.group_name, s.display_name, s.id LIMIT $5"
        ))
        .bind(user.as_uuid())
        .bind(after_group)
        .bind(after_name)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let servers = rows
            .into_iter()
            .map(Server::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(servers, page.size, |server| {
            Cursor::of([
                server.group.to_string(),
                server.display_name.to_string(),
                server.id.to_string(),
            ])
        }))
    }

    /// Changes a server. Another destination or role voids the password.
    ///
    /// # Errors
    /// [`UpdateServerError`] by cause.
    pub async fn update(&self, id: ServerId, change: &ServerChange) -> Result<Server, UpdateServerError> {
        let mut connection = self.store.acquire().await?;
        let mut attempt = 1;
        loop {
            let mut tx = connection.begin().await?;
            let before = lock(&mut tx, id).await?.ok_or(UpdateServerError::NotFound)?;
            if !Etag::allows(change.etag.as_ref(), before.version) {
                return Err(UpdateServerError::EtagMismatch);
            }
            let before = Server::try_from(before)?;
            let after = apply(before.clone(), change);
            match write(&mut tx, &before, &after).await {
                Err(error) if attempt < ATTEMPTS && meets_a_merge(&error) => {
                    attempt += 1;
                    continue;
                }
                written => written?,
            }
            let row = read(&mut tx, id).await?;
            if before.owner() != after.owner() || before.group != after.group {
                Counter::Policy.next(&mut tx).await?;
            }
            tx.commit().await?;
            return Ok(row.try_into()?);
        }
    }

    /// Forgets a server with its password.
    ///
    /// # Errors
    /// [`DeleteServerError`] by cause.
    pub async fn delete(&self, id: ServerId, etag: Option<&Etag>) -> Result<(), DeleteServerError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let version: Option<i64> =
            sqlx::query_scalar("SELECT version FROM pgmoor.servers WHERE id = $1 FOR UPDATE")
                .bind(id.as_uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if !Etag::allows(etag, version.ok_or(DeleteServerError::NotFound)?) {
            return Err(DeleteServerError::EtagMismatch);
        }
        let operations = operations::active(&mut tx, Some(id), None).await?;
        if !operations.is_empty() {
            return Err(DeleteServerError::InUse { operations });
        }
        sqlx::query("DELETE FROM pgmoor.servers WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The instance that was found is gone: it was merged into another one, which the next look finds.
fn meets_a_merge(error: &sqlx::Error) -> bool {
    violated_constraint(error) == Some("servers_instance_id")
}

fn apply(mut server: Server, change: &ServerChange) -> Server {
    let change = change.clone();
    server.group = change.group.unwrap_or(server.group);
    server.display_name = change.display_name.unwrap_or(server.display_name);
    server.destination = change.destination.unwrap_or(server.destination);
    server.maintenance_database = change.maintenance_database.unwrap_or(server.maintenance_database);
    server.username = change.username.unwrap_or(server.username);
    server.comment = change.comment.unwrap_or(server.comment);
    match change.owner {
        Some(Principal::User(user)) => (server.owner_id, server.owner_group) = (user, None),
        Some(Principal::Group(group)) => server.owner_group = Some(group),
        None => {}
    }
    server
}

async fn insert(tx: &mut PgConnection, new: &NewServer) -> Result<(), sqlx::Error> {
    let instance_id = instances::find_or_create(tx, &new.destination).await?;
    let (endpoints, tls_mode, root_certificates) = DestinationRow::of(&new.destination).into_values();
    sqlx::query(
        "INSERT INTO pgmoor.servers (id, owner_id, group_name, display_name, instance_id, endpoints, \
         tls_mode, \
         root_certificates, maintenance_database, username, comment) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(new.id.as_uuid())
    .bind(new.owner_id.as_uuid())
    .bind(new.group.as_str())
    .bind(new.display_name.as_str())
    .bind(instance_id)
    .bind(endpoints)
    .bind(tls_mode)
    .bind(root_certificates)
    .bind(new.maintenance_database.as_str())
    .bind(new.username.as_str())
    .bind(&new.comment)
    .execute(tx)
    .await
    .map(drop)
}

/// Writes a locked server as it shall be, and deletes its passwords where they would go elsewhere.
async fn write(tx: &mut PgConnection, before: &Server, after: &Server) -> Result<(), sqlx::Error> {
    let elsewhere = before.destination != after.destination;
    if elsewhere || before.username != after.username {
        credential::delete(tx, after.id).await?;
    }
    if elsewhere {
        role_credential::delete_all(tx, after.id).await?;
    }
    let instance_id = match before.destination.endpoints() == after.destination.endpoints() {
        true => before.instance_id.as_uuid(),
        false => instances::find_or_create(tx, &after.destination).await?,
    };
    let (endpoints, tls_mode, root_certificates) = DestinationRow::of(&after.destination).into_values();
    sqlx::query(
        "UPDATE pgmoor.servers SET group_name = $2, display_name = $3, instance_id = $4, endpoints = $5, \
         tls_mode = $6, root_certificates = $7, maintenance_database = $8, username = $9, comment = $10, \
         owner_id = $11, owner_group_id = $12, version = version + 1, update_time = clock_timestamp() WHERE id = $1",
    )
    .bind(after.id.as_uuid())
    .bind(after.group.as_str())
    .bind(after.display_name.as_str())
    .bind(instance_id)
    .bind(endpoints)
    .bind(tls_mode)
    .bind(root_certificates)
    .bind(after.maintenance_database.as_str())
    .bind(after.username.as_str())
    .bind(&after.comment)
    .bind(after.owner_id.as_uuid())
    .bind(after.owner_group.map(GroupId::as_uuid))
    .execute(tx)
    .await
    .map(drop)
}

async fn lock(tx: &mut PgConnection, id: ServerId) -> Result<Option<ServerRow>, sqlx::Error> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM pgmoor.servers AS s WHERE s.id = $1 FOR UPDATE OF s"
    );
    sqlx::query_as(sql).bind(id.as_uuid()).fetch_optional(tx).await
}

async fn lock_by_name(
    tx: &mut PgConnection,
    owner_id: UserId,
    group: &DisplayName,
    name: &DisplayName,
) -> Result<Option<ServerRow>, sqlx::Error> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM pgmoor.servers AS s WHERE s.owner_id = $1 AND s.owner_group_id IS NULL AND s.group_name = $2 \
         AND s.display_name = $3 FOR UPDATE OF s"
    );
    sqlx::query_as(sql)
        .bind(owner_id.as_uuid())
        .bind(group.as_str())
        .bind(name.as_str())
        .fetch_optional(tx)
        .await
}

async fn read(tx: &mut PgConnection, id: ServerId) -> Result<ServerRow, sqlx::Error> {
    let sql = concat!("SELECT ", columns!(), " FROM pgmoor.servers AS s WHERE s.id = $1");
    sqlx::query_as(sql).bind(id.as_uuid()).fetch_one(tx).await
}
