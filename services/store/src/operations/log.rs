//! The logs of operations: what their programs printed, in the order it came, readable from any offset by any
//! process.
//!
//! Invariant: pieces lie end to end from offset 0, and only the attempt that runs appends.

use domain::id::OperationId;
use sqlx::Connection as _;
use thiserror::Error;

use super::Operations;
use super::attempt::{Attempt, number};
use crate::error::{Inconsistency, StoreError, store_variant};

/// Most bytes of one operation's log, all attempts together.
pub const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// The bytes from the offset on.
    pub data: Vec<u8>,
    /// Where to go on.
    pub next_offset: u64,
    /// True where nothing more will come: the operation has ended and this is the end of its log.
    pub end: bool,
}

/// Why nothing was appended.
#[derive(Debug, Error)]
pub enum AppendLogError {
    /// The operation is not this worker's any more.
    #[error("the operation is not this worker's any more")]
    Superseded,
    /// The log would exceed [`LOG_LIMIT`]. The worker goes on without it.
    #[error("the log is full")]
    Full,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was read.
#[derive(Debug, Error)]
pub enum ReadLogError {
    /// There is no such operation.
    #[error("there is no such operation")]
    NotFound,
    /// The offset is beyond the end.
    #[error("the offset is beyond the log's {size} bytes")]
    OffsetOutOfRange {
        /// The log's size.
        size: u64,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(AppendLogError, ReadLogError);

impl Operations<'_> {
    /// Appends to the log of an operation that runs and returns the log's new size.
    ///
    /// # Errors
    /// [`AppendLogError`] by cause.
    pub async fn append_log(&self, attempt: &Attempt, data: &[u8]) -> Result<u64, AppendLogError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let offset: Option<i64> = sqlx::query_scalar(
            "SELECT log_size FROM pgmoor.operations \
             WHERE id = $1 AND incarnation = $2 AND attempt = $3 AND state = 'running' FOR NO KEY UPDATE",
        )
        .bind(attempt.operation_id.as_uuid())
        .bind(attempt.incarnation.as_uuid())
        .bind(number(attempt))
        .fetch_optional(&mut *tx)
        .await?;
        let offset = offset.ok_or(AppendLogError::Superseded)?;
        let wrong = |_| Inconsistency::new("operations", "log_size", attempt.operation_id);
        let size = u64::try_from(offset).map_err(wrong)? + data.len() as u64;
        if size > LOG_LIMIT {
            return Err(AppendLogError::Full);
        }
        if data.is_empty() {
            return Ok(size);
        }
        sqlx::query("INSERT INTO pgmoor.operation_logs (operation_id, log_offset, data) VALUES ($1, $2, $3)")
            .bind(attempt.operation_id.as_uuid())
            .bind(offset)
            .bind(data)
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE pgmoor.operations SET log_size = log_size + octet_length($2) WHERE id = $1")
            .bind(attempt.operation_id.as_uuid())
            .bind(data)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(size)
    }

    /// Reads at most `limit` bytes of a log from an offset on.
    ///
    /// # Errors
    /// [`ReadLogError`] by cause.
    pub async fn read_log(&self, id: OperationId, offset: u64, limit: u32) -> Result<LogPiece, ReadLogError> {
        let mut connection = self.store.acquire().await?;
        // The size is read first: what is appended afterwards is for the next call, and `end` is true of this
        // size.
        let row: Option<(i64, bool)> =
            sqlx::query_as("SELECT log_size, end_time IS NOT NULL FROM pgmoor.operations WHERE id = $1")
                .bind(id.as_uuid())
                .fetch_optional(&mut *connection)
                .await?;
        let (size, ended) = row.ok_or(ReadLogError::NotFound)?;
        let size = u64::try_from(size).map_err(|_| Inconsistency::new("operations", "log_size", id))?;
        if offset > size {
            return Err(ReadLogError::OffsetOutOfRange { size });
        }
        let stop = size.min(offset.saturating_add(u64::from(limit)));
        let first = i64::try_from(offset).unwrap_or(i64::MAX);
        let data: Vec<u8> = sqlx::query_scalar(
            "SELECT coalesce(string_agg(substring(data FROM greatest($2 - log_offset, 0)::int + 1 \
                 FOR ($3 - greatest(log_offset, $2))::int), ''::bytea ORDER BY log_offset), ''::bytea) \
             FROM pgmoor.operation_logs WHERE operation_id = $1 AND log_offset < $3 \
             AND log_offset >= coalesce((SELECT max(log_offset) FROM pgmoor.operation_logs \
                                         WHERE operation_id = $1 AND log_offset <= $2), 0)",
        )
        .bind(id.as_uuid())
        .bind(first)
        .bind(i64::try_from(stop).unwrap_or(i64::MAX))
        .fetch_one(&mut *connection)
        .await?;
        if data.len() as u64 != stop - offset {
            // Forgotten while it was read.
            return Err(ReadLogError::NotFound);
        }
        Ok(LogPiece {
            data,
            next_offset: stop,
            end: ended && stop == size,
        })
    }
}
