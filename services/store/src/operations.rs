//! Operations: background work that is asked for through one process and carried out by another.
//!
//! Invariant: one worker at a time carries an operation out, under a lease on the database's clock; every
//! write of a worker names its attempt, and one whose operation was given to somebody else, or has ended, is
//! refused.

mod attempt;
mod log;
mod row;
mod unfinished;

use std::time::Duration;

use domain::id::{BackupId, OperationId, ServerId, UserId};
use domain::name::Identifier;
use domain::operation::{OperationKind, OperationProgress, OperationState};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::governs;
use crate::error::{Inconsistency, StoreError, store_variant};
use crate::limits::{self, LimitReached};
use crate::page::{Cursor, Page, PageRequest};
use crate::{Store, seconds};

pub use attempt::{Attempt, AttemptError, Claimed, Fate, Heartbeat, LostOperation};
use row::OperationRow;

pub use log::{AppendLogError, LOG_LIMIT, LogPiece, ReadLogError};

/// How long a request id means the same operation.
const REQUEST_ID_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A piece of background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The id.
    pub id: OperationId,
    /// Whose it is.
    pub owner_id: UserId,
    /// What it does.
    pub kind: OperationKind,
    /// How it stands.
    pub state: OperationState,
    /// The server it works on.
    pub server_id: ServerId,
    /// The database it works on.
    pub database: Identifier,
    /// The backup it makes or restores.
    pub backup_id: Option<BackupId>,
    /// What is to be done, in the worker's terms.
    pub request: Value,
    /// How far it is.
    pub progress: OperationProgress,
    /// How often a worker began it.
    pub attempt: u32,
    /// True once its cancellation was asked for.
    pub cancel_requested: bool,
    /// The log's size in bytes so far.
    pub log_size: u64,
    /// When it was asked for.
    pub create_time: OffsetDateTime,
    /// When a worker began it last.
    pub start_time: Option<OffsetDateTime>,
    /// When it ended.
    pub end_time: Option<OffsetDateTime>,
}

/// An operation to queue.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// The id.
    pub id: OperationId,
    /// Whose it is.
    pub owner_id: UserId,
    /// What it does.
    pub kind: OperationKind,
    /// The server it works on.
    pub server_id: ServerId,
    /// The database it works on.
    pub database: Identifier,
    /// The backup it makes, or the one it restores, which must exist.
    pub backup_id: Option<BackupId>,
    /// What is to be done, in the worker's terms. No secrets.
    pub request: Value,
    /// How often it may be begun before a lost worker makes it fail: 1 for what must not be done twice.
    pub max_attempts: u32,
    /// The client's id of the request, so that sending it again makes no second operation.
    pub request_id: Option<RequestId>,
}

/// A client's id of a request, with a hash of the request it was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The id.
    pub id: String,
    /// The request's hash.
    pub hash: [u8; 32],
}

/// What became of a wish for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// It was queued.
    Created(Operation),
    /// It was queued already, by the same request within the last 24 hours.
    Existing(Operation),
}

/// Why an operation was not queued.
#[derive(Debug, Error)]
pub enum EnqueueError {
    /// There is no such server.
    #[error("there is no such server")]
    ServerNotFound,
    /// There is no such backup.
    #[error("there is no such backup")]
    BackupNotFound,
    /// The request id was sent with another request.
    #[error("the request id was used with another request")]
    RequestIdReused,
    /// There are as many as there may be.
    #[error(transparent)]
    LimitReached(#[from] LimitReached),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operation was not forgotten.
#[derive(Debug, Error)]
pub enum DeleteOperationError {
    /// There is no such operation.
    #[error("there is no such operation")]
    NotFound,
    /// It has not ended yet.
    #[error("the operation has not ended")]
    Running,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(EnqueueError, DeleteOperationError);

/// The columns of [`OperationRow`], of a table with the alias `o`.
macro_rules! columns {
    () => {
        "o.id, o.owner_id, o.kind, o.state, o.server_id, o.database, o.backup_id, o.request, o.phase, \
         o.bytes_done, \
         o.bytes_total, o.objects_done, o.objects_total, o.error_reason, o.error_message, o.exit_status, \
         o.attempt, \
         o.cancel_requested, o.log_size, o.create_time, o.start_time, o.end_time"
    };
}
use columns;

/// The operations. Made by [`Store::operations`].
#[derive(Debug, Clone, Copy)]
pub struct Operations<'a> {
    store: &'a Store,
}

impl Store {
    /// The operations.
    #[must_use]
    pub fn operations(&self) -> Operations<'_> {
        Operations { store: self }
    }
}

impl Operations<'_> {
    /// Queues an operation, unless the same request did already.
    ///
    /// # Errors
    /// [`EnqueueError`] by cause.
    pub async fn enqueue(&self, new: &NewOperation) -> Result<Enqueued, EnqueueError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        if let Some(request_id) = &new.request_id {
            forget_old_request(&mut tx, new.owner_id, request_id).await?;
            // A repeated request gets its operation even where the server is gone by now.
            if let Some(existing) = existing(&mut tx, new.owner_id, request_id).await? {
                return Ok(Enqueued::Existing(existing));
            }
        }
        let owner = new.owner_id.as_uuid();
        limits::OPERATIONS.lock(&mut tx, owner).await?;
        lock_targets(&mut tx, new).await?;
        let row: Option<OperationRow> = sqlx::query_as(concat!(
            "INSERT INTO pgmoor.operations AS o (id, owner_id, kind, server_id, database, backup_id, \
             request, \
             max_attempts, request_id, request_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT ON CONSTRAINT operations_request_id_key DO NOTHING RETURNING ",
            columns!()
        ))
        .bind(new.id.as_uuid())
        .bind(new.owner_id.as_uuid())
        .bind(new.kind.as_str())
        .bind(new.server_id.as_uuid())
        .bind(new.database.as_str())
        .bind(new.backup_id.map(BackupId::as_uuid))
        .bind(&new.request)
        .bind(i32::try_from(new.max_attempts.max(1)).unwrap_or(i32::MAX))
        .bind(new.request_id.as_ref().map(|request_id| &request_id.id))
        .bind(
            new.request_id
                .as_ref()
                .map(|request_id| request_id.hash.as_slice()),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = row {
            limits::OPERATIONS.check(&mut tx, owner).await??;
            tx.commit().await?;
            return Ok(Enqueued::Created(row.try_into()?));
        }
        // The same request came through another instance in between.
        let found = match &new.request_id {
            Some(request_id) => existing(&mut tx, new.owner_id, request_id).await?,
            None => None,
        };
        let missing = || Inconsistency::new("operations", "request_id", new.id);
        Ok(Enqueued::Existing(found.ok_or_else(missing)?))
    }

    /// Reads an operation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<OperationRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.operations AS o WHERE o.id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Operation::try_from).transpose()?)
    }

    /// Lists the operations a user may see, newest first: their own, and those of servers that are theirs or where a role lets them.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, user: UserId, page: &PageRequest) -> Result<Page<Operation>, StoreError> {
        let (after_time, after_id) = page.after.as_ref().map(Cursor::time_and_id).transpose()?.unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<OperationRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.operations AS o WHERE (o.owner_id = $1 OR EXISTS \
                 (SELECT FROM pgmoor.servers AS s WHERE s.id = o.server_id AND ",
            governs!("$1", "operations.read"),
            ")) AND ($2::timestamptz IS NULL OR (o.create_time, o.id) < ($2, $3)) \
             ORDER BY o.create_time DESC, o.id DESC LIMIT $4"
        ))
        .bind(user.as_uuid())
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let operations = rows
            .into_iter()
            .map(Operation::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(operations, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Asks for an operation to be cancelled. One that no worker has begun ends at once; one that has ended
    /// stays as it is. `None` where there is no such operation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "UPDATE pgmoor.operations SET cancel_requested = true, \
             state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END, \
             end_time = CASE state WHEN 'queued' THEN clock_timestamp() END \
             WHERE id = $1 AND state IN ('queued', 'running')",
        )
        .bind(id.as_uuid())
        .execute(&mut *connection)
        .await?;
        let row: Option<OperationRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.operations AS o WHERE o.id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Operation::try_from).transpose()?)
    }

    /// Forgets an operation that has ended, with its log.
    ///
    /// # Errors
    /// [`DeleteOperationError`] by cause.
    pub async fn delete(&self, id: OperationId) -> Result<(), DeleteOperationError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let ended: Option<bool> =
            sqlx::query_scalar("SELECT end_time IS NOT NULL FROM pgmoor.operations WHERE id = $1 FOR UPDATE")
                .bind(id.as_uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if !ended.ok_or(DeleteOperationError::NotFound)? {
            return Err(DeleteOperationError::Running);
        }
        sqlx::query("DELETE FROM pgmoor.operations WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Forgets operations that ended longer than `age` ago, with their logs. Returns how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql =
            "DELETE FROM pgmoor.operations WHERE end_time < clock_timestamp() - make_interval(secs => $1)";
        Ok(sqlx::query(sql)
            .bind(seconds(age))
            .execute(&mut *connection)
            .await?
            .rows_affected())
    }
}

/// The operations of a server, or of a backup, that have not ended.
pub(crate) async fn active(
    tx: &mut PgConnection,
    server_id: Option<ServerId>,
    backup_id: Option<BackupId>,
) -> Result<Vec<OperationId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM pgmoor.operations WHERE state IN ('queued', 'running') \
         AND (server_id = $1 OR backup_id = $2) ORDER BY create_time, id",
    )
    .bind(server_id.map(ServerId::as_uuid))
    .bind(backup_id.map(BackupId::as_uuid))
    .fetch_all(tx)
    .await?;
    Ok(ids.into_iter().map(OperationId::from_uuid).collect())
}

async fn forget_old_request(
    tx: &mut PgConnection,
    owner_id: UserId,
    request_id: &RequestId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE pgmoor.operations SET request_id = NULL, request_hash = NULL WHERE owner_id = $1 \
         AND request_id = $2 AND create_time < clock_timestamp() - make_interval(secs => $3)",
    )
    .bind(owner_id.as_uuid())
    .bind(&request_id.id)
    .bind(seconds(REQUEST_ID_LIFETIME))
    .execute(tx)
    .await
    .map(drop)
}

async fn existing(
    tx: &mut PgConnection,
    owner_id: UserId,
    request_id: &RequestId,
) -> Result<Option<Operation>, EnqueueError> {
    let row: Option<RequestedRow> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        ", o.request_hash FROM pgmoor.operations AS o WHERE o.owner_id = $1 AND o.request_id = $2"
    ))
    .bind(owner_id.as_uuid())
    .bind(&request_id.id)
    .fetch_optional(tx)
    .await?;
    match row {
        Some(row) if row.request_hash.as_deref() != Some(&request_id.hash) => {
            Err(EnqueueError::RequestIdReused)
        }
        Some(row) => Ok(Some(row.operation.try_into()?)),
        None => Ok(None),
    }
}

/// Keeps what the operation works on from being deleted before it is queued; its deletion looks for queued
/// operations.
async fn lock_targets(tx: &mut PgConnection, new: &NewOperation) -> Result<(), EnqueueError> {
    const SERVER: &str = "SELECT true FROM pgmoor.servers WHERE id = $1 FOR SHARE";
    const BACKUP: &str = "SELECT true FROM pgmoor.backups WHERE id = $1 FOR SHARE";
    let server: Option<bool> = sqlx::query_scalar(SERVER)
        .bind(new.server_id.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
    server.ok_or(EnqueueError::ServerNotFound)?;
    if let (OperationKind::Restore, Some(backup_id)) = (new.kind, new.backup_id) {
        let backup: Option<bool> = sqlx::query_scalar(BACKUP)
            .bind(backup_id.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        backup.ok_or(EnqueueError::BackupNotFound)?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct RequestedRow {
    #[sqlx(flatten)]
    operation: OperationRow,
    request_hash: Option<Vec<u8>>,
}
