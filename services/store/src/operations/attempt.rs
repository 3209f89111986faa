//! The worker's side: claiming an operation, saying that it goes on, ending it, and giving up on workers that
//! are lost.

use std::time::Duration;

use domain::id::{IncarnationId, OperationId};
use domain::operation::{LOST, OperationFailure, OperationOutcome, OperationPhase, OperationProgress};
use sqlx::Connection as _;
use thiserror::Error;
use uuid::Uuid;

use super::row::OperationRow;
use super::{Operation, Operations, columns};
use crate::backups::{self, Backup, NewBackup};
use crate::error::{Inconsistency, StoreError, store_variant};
use crate::seconds;

/// Most lost operations dealt with at a time.
const BATCH: i64 = 100;

/// One worker's try at one operation: what each of its writes names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The operation.
    pub operation_id: OperationId,
    /// The worker.
    pub incarnation: IncarnationId,
    /// The attempt's number, from 1.
    pub number: u32,
}

/// An operation that is the worker's now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What its writes name.
    pub attempt: Attempt,
    /// The operation.
    pub operation: Operation,
}

/// What a worker learns when it says that it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// True once the operation's cancellation was asked for.
    pub cancel_requested: bool,
}

/// An operation whose worker was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostOperation {
    /// The attempt that was given up.
    pub attempt: Attempt,
    /// What became of the operation.
    pub fate: Fate,
}

/// What became of an operation whose worker was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is queued again.
    Requeued,
    /// It failed with reason `LOST`.
    Failed,
    /// It was to be cancelled anyway.
    Cancelled,
}

/// Why a worker's write was refused.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// The operation was given to somebody else, or has ended: the worker stops and removes what it made.
    #[error("the operation is not this worker's any more")]
    Superseded,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(AttemptError);

impl Operations<'_> {
    /// Takes the oldest operation that is queued and that no other worker is taking. `None` where there is
    /// none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(
        &self,
        incarnation: IncarnationId,
        lease: Duration,
    ) -> Result<Option<Claimed>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<OperationRow> = sqlx::query_as(concat!(
            "UPDATE pgmoor.operations AS o SET state = 'running', incarnation = $1, attempt = o.attempt + 1, \
             lease_until = clock_timestamp() + make_interval(secs => $2), start_time = clock_timestamp(), \
             phase = NULL, bytes_done = 0, bytes_total = NULL, objects_done = 0, objects_total = NULL \
             WHERE o.id = (SELECT id FROM pgmoor.operations WHERE state = 'queued' \
                           ORDER BY create_time, id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING ",
            columns!()
        ))
        .bind(incarnation.as_uuid())
        .bind(seconds(lease))
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let operation = Operation::try_from(row)?;
        let attempt = Attempt {
            operation_id: operation.id,
            incarnation,
            number: operation.attempt,
        };
        Ok(Some(Claimed { attempt, operation }))
    }

    /// Says that the worker goes on and how far it is, and asks whether it shall.
    ///
    /// # Errors
    /// [`AttemptError::Superseded`] where the operation is not the worker's any more.
    pub async fn heartbeat(
        &self,
        attempt: &Attempt,
        progress: &OperationProgress,
        lease: Duration,
    ) -> Result<Heartbeat, AttemptError> {
        let mut connection = self.store.acquire().await?;
        let cancel_requested: Option<bool> = sqlx::query_scalar(
            "UPDATE pgmoor.operations SET lease_until = clock_timestamp() + make_interval(secs => $4), \
             phase = $5, bytes_done = $6, bytes_total = $7, objects_done = $8, objects_total = $9 \
             WHERE id = $1 AND incarnation = $2 AND attempt = $3 AND state = 'running' RETURNING \
             cancel_requested",
        )
        .bind(attempt.operation_id.as_uuid())
        .bind(attempt.incarnation.as_uuid())
        .bind(number(attempt))
        .bind(seconds(lease))
        .bind(progress.phase.map(OperationPhase::as_str))
        .bind(bounded(progress.bytes_done))
        .bind(progress.bytes_total.map(bounded))
        .bind(bounded(progress.objects_done))
        .bind(progress.objects_total.map(bounded))
        .fetch_optional(&mut *connection)
        .await?;
        let cancel_requested = cancel_requested.ok_or(AttemptError::Superseded)?;
        Ok(Heartbeat { cancel_requested })
    }

    /// Ends an operation.
    ///
    /// # Errors
    /// [`AttemptError::Superseded`] where the operation is not the worker's any more.
    pub async fn finish(
        &self,
        attempt: &Attempt,
        outcome: &OperationOutcome,
    ) -> Result<Operation, AttemptError> {
        let mut connection = self.store.acquire().await?;
        let row = finish(&mut connection, attempt, outcome).await?;
        Ok(row.ok_or(AttemptError::Superseded)?.try_into()?)
    }

    /// Ends a backup well: the backup appears in the transaction that ends its operation.
    ///
    /// # Errors
    /// [`AttemptError::Superseded`] where the operation is not the worker's any more; then there is no backup
    /// either.
    pub async fn finish_backup(&self, attempt: &Attempt, backup: &NewBackup) -> Result<Backup, AttemptError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let row = finish(&mut tx, attempt, &OperationOutcome::Succeeded).await?;
        let operation = Operation::try_from(row.ok_or(AttemptError::Superseded)?)?;
        let backup = backups::insert(&mut tx, &operation, backup).await?;
        tx.commit().await?;
        Ok(backup)
    }

    /// Gives an operation back that the worker has not done, because it is about to stop: another one begins
    /// it anew.
    ///
    /// # Errors
    /// [`AttemptError::Superseded`] where the operation is not the worker's any more.
    pub async fn hand_back(&self, attempt: &Attempt) -> Result<(), AttemptError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.operations SET state = 'queued', incarnation = NULL, lease_until = NULL, phase = \
             NULL \
             WHERE id = $1 AND incarnation = $2 AND attempt = $3 AND state = 'running'",
        )
        .bind(attempt.operation_id.as_uuid())
        .bind(attempt.incarnation.as_uuid())
        .bind(number(attempt))
        .execute(&mut *connection)
        .await?;
        match done.rows_affected() {
            1 => Ok(()),
            _ => Err(AttemptError::Superseded),
        }
    }

    /// Deals with operations whose worker's lease has run out: they are queued again as often as they may be,
    /// cancelled where that was asked for, and else fail with reason `LOST`. Any worker may call it, at any
    /// time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reap_lost(&self) -> Result<Vec<LostOperation>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, Uuid, i32, String)> = sqlx::query_as(
            "WITH lost AS (SELECT id, incarnation, \
                 CASE WHEN cancel_requested THEN 'cancelled' WHEN attempt < max_attempts THEN 'queued' \
                 ELSE 'failed' END AS fate \
                 FROM pgmoor.operations WHERE state = 'running' AND lease_until <= clock_timestamp() \
                 ORDER BY lease_until FOR UPDATE SKIP LOCKED LIMIT $1) \
             UPDATE pgmoor.operations AS o SET state = lost.fate, incarnation = NULL, lease_until = NULL, \
             error_reason = CASE lost.fate WHEN 'failed' THEN $2 END, \
             error_message = CASE lost.fate WHEN 'failed' THEN $3 END, \
             end_time = CASE WHEN lost.fate <> 'queued' THEN clock_timestamp() END \
             FROM lost WHERE o.id = lost.id RETURNING o.id, lost.incarnation, o.attempt, lost.fate",
        )
        .bind(BATCH)
        .bind(LOST)
        .bind(OperationFailure::lost().message)
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows.into_iter().map(lost).collect::<Result<_, _>>()?)
    }
}

async fn finish(
    connection: &mut sqlx::PgConnection,
    attempt: &Attempt,
    outcome: &OperationOutcome,
) -> Result<Option<OperationRow>, sqlx::Error> {
    let (state, failure) = match outcome {
        OperationOutcome::Succeeded => ("succeeded", None),
        OperationOutcome::Failed(failure) => ("failed", Some(failure)),
        OperationOutcome::Cancelled => ("cancelled", None),
    };
    sqlx::query_as(concat!(
        "UPDATE pgmoor.operations AS o SET state = $4, error_reason = $5, error_message = $6, exit_status = \
         $7, \
         incarnation = NULL, lease_until = NULL, end_time = clock_timestamp() \
         WHERE o.id = $1 AND o.incarnation = $2 AND o.attempt = $3 AND o.state = 'running' RETURNING ",
        columns!()
    ))
    .bind(attempt.operation_id.as_uuid())
    .bind(attempt.incarnation.as_uuid())
    .bind(number(attempt))
    .bind(state)
    .bind(failure.map(|failure| &failure.reason))
    .bind(failure.map(|failure| &failure.message))
    .bind(failure.and_then(|failure| failure.exit_status))
    .fetch_optional(connection)
    .await
}

pub(super) fn number(attempt: &Attempt) -> i32 {
    i32::try_from(attempt.number).unwrap_or(i32::MAX)
}

fn bounded(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn lost((id, incarnation, number, fate): (Uuid, Uuid, i32, String)) -> Result<LostOperation, Inconsistency> {
    let wrong = |column| Inconsistency::new("operations", column, id);
    let attempt = Attempt {
        operation_id: OperationId::from_uuid(id),
        incarnation: IncarnationId::from_uuid(incarnation),
        number: number.try_into().map_err(|_| wrong("attempt"))?,
    };
    let fate = match fate.as_str() {
        "queued" => Fate::Requeued,
        "failed" => Fate::Failed,
        "cancelled" => Fate::Cancelled,
        _ => return Err(wrong("state")),
    };
    Ok(LostOperation { attempt, fate })
}
