//! Backups: artifacts in the object store, and where they came from.
//!
//! Invariant: a backup's row appears in the transaction that ends its operation, after its artifact was
//! published.

use domain::id::{BackupId, OperationId, ServerId, UserId};
use domain::name::Identifier;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::access::governs;
use crate::error::{Inconsistency, StoreError, store_variant};
use crate::operations::{self, Operation};
use crate::page::{Cursor, Page, PageRequest};

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The id.
    pub id: BackupId,
    /// Whose it is.
    pub owner_id: UserId,
    /// The server it was made from, which may be gone.
    pub server_id: ServerId,
    /// The database it was made from.
    pub database: Identifier,
    /// The schemas that were chosen.
    pub schemas: Vec<Identifier>,
    /// The tables that were chosen.
    pub tables: Vec<TableName>,
    /// The artifact.
    pub artifact: Artifact,
    /// The version of pg_dump that made it.
    pub tool_version: String,
    /// The version of the server it was made from.
    pub server_version: String,
    /// The operation that made it, which may be forgotten.
    pub operation_id: OperationId,
    /// When it was complete.
    pub create_time: OffsetDateTime,
}

/// A table by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// Its schema.
    pub schema: Identifier,
    /// Its name.
    pub table: Identifier,
}

/// An artifact in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is.
    pub storage_key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// A backup that was made. Owner, server and database are its operation's.
#[derive(Debug, Clone)]
pub struct NewBackup {
    /// The id: the operation's `backup_id`.
    pub id: BackupId,
    /// The schemas that were chosen.
    pub schemas: Vec<Identifier>,
    /// The tables that were chosen.
    pub tables: Vec<TableName>,
    /// The artifact.
    pub artifact: Artifact,
    /// The version of pg_dump that made it.
    pub tool_version: String,
    /// The version of the server it was made from.
    pub server_version: String,
}

/// Why a backup was not deleted.
#[derive(Debug, Error)]
pub enum DeleteBackupError {
    /// There is no such backup.
    #[error("there is no such backup")]
    NotFound,
    /// Operations restore it.
    #[error("the backup is being restored")]
    InUse {
        /// The operations.
        operations: Vec<OperationId>,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(DeleteBackupError);

/// The columns of [`BackupRow`].
macro_rules! columns {
    () => {
        "id, owner_id, server_id, database, schemas, tables, size_bytes, sha256, storage_key, tool_version, \
         server_version, operation_id, create_time"
    };
}

/// The backups. Made by [`Store::backups`].
#[derive(Debug, Clone, Copy)]
pub struct Backups<'a> {
    store: &'a Store,
}

impl Store {
    /// The backups.
    #[must_use]
    pub fn backups(&self) -> Backups<'_> {
        Backups { store: self }
    }
}

impl Backups<'_> {
    /// Reads a backup.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: BackupId) -> Result<Option<Backup>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<BackupRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.backups WHERE id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Backup::try_from).transpose()?)
    }

    /// Lists the backups a user may see, newest first: their own, and those of servers that are theirs or where a role lets them.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, user: UserId, page: &PageRequest) -> Result<Page<Backup>, StoreError> {
        let (after_time, after_id) = page.after.as_ref().map(Cursor::time_and_id).transpose()?.unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<BackupRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.backups WHERE (owner_id = $1 OR EXISTS \
                 (SELECT FROM pgmoor.servers AS s WHERE s.id = backups.server_id AND ",
            governs!("$1", "backups.read"),
            ")) AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3)) \
             ORDER BY create_time DESC, id DESC LIMIT $4"
        ))
        .bind(user.as_uuid())
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let backups = rows
            .into_iter()
            .map(Backup::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(backups, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Forgets a backup and returns it, so that its artifact can be removed. An artifact without a row is
    /// garbage; a row without an artifact would be a lie: the row goes first.
    ///
    /// # Errors
    /// [`DeleteBackupError`] by cause.
    pub async fn delete(&self, id: BackupId) -> Result<Backup, DeleteBackupError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let row: Option<BackupRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.backups WHERE id = $1 FOR UPDATE"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
        let backup = Backup::try_from(row.ok_or(DeleteBackupError::NotFound)?)?;
        let operations = operations::active(&mut tx, None, Some(id)).await?;
        if !operations.is_empty() {
            return Err(DeleteBackupError::InUse { operations });
        }
        sqlx::query("DELETE FROM pgmoor.backups WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(backup)
    }
}

pub(crate) async fn insert(
    tx: &mut PgConnection,
    operation: &Operation,
    new: &NewBackup,
) -> Result<Backup, StoreError> {
    let schemas: Vec<&str> = new.schemas.iter().map(Identifier::as_str).collect();
    let tables = new.tables.iter();
    let tables: Value = tables
        .map(|it| json!({ "schema": it.schema.as_str(), "table": it.table.as_str() }))
        .collect();
    let row: BackupRow = sqlx::query_as(concat!(
        "INSERT INTO pgmoor.backups (id, owner_id, server_id, database, schemas, tables, size_bytes, sha256, \
         storage_key, tool_version, server_version, operation_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING ",
        columns!()
    ))
    .bind(new.id.as_uuid())
    .bind(operation.owner_id.as_uuid())
    .bind(operation.server_id.as_uuid())
    .bind(operation.database.as_str())
    .bind(schemas)
    .bind(tables)
    .bind(i64::try_from(new.artifact.size_bytes).unwrap_or(i64::MAX))
    .bind(new.artifact.sha256.as_slice())
    .bind(&new.artifact.storage_key)
    .bind(&new.tool_version)
    .bind(&new.server_version)
    .bind(operation.id.as_uuid())
    .fetch_one(tx)
    .await?;
    Ok(row.try_into()?)
}

#[derive(sqlx::FromRow)]
struct BackupRow {
    id: Uuid,
    owner_id: Uuid,
    server_id: Uuid,
    database: String,
    schemas: Vec<String>,
    tables: Value,
    size_bytes: i64,
    sha256: Vec<u8>,
    storage_key: String,
    tool_version: String,
    server_version: String,
    operation_id: Uuid,
    create_time: OffsetDateTime,
}

impl TryFrom<BackupRow> for Backup {
    type Error = Inconsistency;

    fn try_from(row: BackupRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("backups", column, row.id);
        let schemas = row
            .schemas
            .iter()
            .map(|schema| schema.parse())
            .collect::<Result<_, _>>();
        let tables = row
            .tables
            .as_array()
            .and_then(|tables| tables.iter().map(table_name).collect());
        Ok(Self {
            id: BackupId::from_uuid(row.id),
            owner_id: UserId::from_uuid(row.owner_id),
            server_id: ServerId::from_uuid(row.server_id),
            database: row.database.parse().map_err(|_| wrong("database"))?,
            schemas: schemas.map_err(|_| wrong("schemas"))?,
            tables: tables.ok_or_else(|| wrong("tables"))?,
            artifact: Artifact {
                storage_key: row.storage_key,
                size_bytes: row.size_bytes.try_into().map_err(|_| wrong("size_bytes"))?,
                sha256: row.sha256.try_into().map_err(|_| wrong("sha256"))?,
            },
            tool_version: row.tool_version,
            server_version: row.server_version,
            operation_id: OperationId::from_uuid(row.operation_id),
            create_time: row.create_time,
        })
    }
}

fn table_name(value: &Value) -> Option<TableName> {
    let part = |name| value.get(name)?.as_str()?.parse().ok();
    Some(TableName {
        schema: part("schema")?,
        table: part("table")?,
    })
}
