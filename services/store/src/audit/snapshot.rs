//! The audit trail as it stood at one moment. What is written or removed meanwhile is not seen, so that a chain, its anchor and
//! its writer belong together, however long somebody reads.

use domain::id::IncarnationId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Anchor, Kept, Writer, read, writers};
use crate::Store;
use crate::error::{Inconsistency, StoreError};

/// The trail of one moment. It holds a connection, and keeps the server from removing what has been deleted since.
#[derive(Debug)]
pub struct AuditSnapshot {
    /// Apart from the pool: dropping it ends the transaction.
    connection: PgConnection,
    taken: OffsetDateTime,
}

impl Store {
    /// The audit trail as it stands now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_snapshot(&self) -> Result<AuditSnapshot, StoreError> {
        let mut connection = self.acquire().await?.detach();
        sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut connection)
            .await?;
        // Whoever reads may be held up by where it writes to.
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '10min'")
            .execute(&mut connection)
            .await?;
        let taken = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&mut connection)
            .await?;
        Ok(AuditSnapshot { connection, taken })
    }
}

impl AuditSnapshot {
    /// When it was taken, by the database's clock.
    #[must_use]
    pub fn taken(&self) -> OffsetDateTime {
        self.taken
    }

    /// The writer that comes after this one, among those that have records.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_writer(
        &mut self,
        after: Option<IncarnationId>,
    ) -> Result<Option<IncarnationId>, StoreError> {
        let writer: Option<Uuid> = sqlx::query_scalar(
            "SELECT writer FROM pgmoor.audit_records WHERE $1::uuid IS NULL OR writer > $1 ORDER BY writer LIMIT 1",
        )
        .bind(after.map(IncarnationId::as_uuid))
        .fetch_optional(&mut self.connection)
        .await?;
        Ok(writer.map(IncarnationId::from_uuid))
    }

    /// The records of a writer's chain after one of them, at most `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn chain(
        &mut self,
        writer: IncarnationId,
        after: i64,
        most: u16,
    ) -> Result<Vec<Kept>, StoreError> {
        let rows = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.audit_records AS r WHERE r.writer = $1 AND r.sequence > $2 ORDER BY r.sequence LIMIT $3"
        ))
        .bind(writer.as_uuid())
        .bind(after)
        .bind(i64::from(most))
        .fetch_all(&mut self.connection)
        .await?;
        read(rows)
    }

    /// Where retention cut a writer's chain, if it did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn anchor(&mut self, writer: IncarnationId) -> Result<Option<Anchor>, StoreError> {
        let row: Option<(i64, Vec<u8>, OffsetDateTime)> =
            sqlx::query_as("SELECT sequence, hash, cut_time FROM pgmoor.audit_anchors WHERE writer = $1")
                .bind(writer.as_uuid())
                .fetch_optional(&mut self.connection)
                .await?;
        let Some((sequence, hash, cut_time)) = row else {
            return Ok(None);
        };
        let hash = hash
            .try_into()
            .map_err(|_| Inconsistency::new("audit_anchors", "hash", writer))?;
        Ok(Some(Anchor {
            writer,
            sequence,
            hash,
            cut_time,
        }))
    }

    /// A writer as it was entered. Nothing where none was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn writer(&mut self, id: IncarnationId) -> Result<Option<Writer>, StoreError> {
        writers::find(&mut self.connection, id).await
    }
}
