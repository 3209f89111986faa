//! Elevations that are over by the clock, and whether the audit trail has it.
//!
//! Invariant: one that expired is told of again and again until its record is known to be written.

use std::time::Duration;

use domain::id::ElevationId;
use uuid::Uuid;

use super::{ElevationRow, Elevations, ServerElevation, columns, state};
use crate::error::StoreError;
use crate::seconds;

/// How long who is told of an end has for its record, before another one is told.
pub const RECORD_TIME: Duration = Duration::from_secs(60);

impl Elevations<'_> {
    /// Writes down which are over by the clock, and returns each of them to whoever comes first, who has [`RECORD_TIME`] to write
    /// the record and to say so by [`Elevations::recorded`]. After that it is returned again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire(&self) -> Result<Vec<ServerElevation>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<ElevationRow> = sqlx::query_as(concat!(
            "UPDATE pgmoor.elevations AS e SET state = 'expired', version = version + 1, \
             update_time = clock_timestamp(), record_due = clock_timestamp() + make_interval(secs => $1) \
             WHERE e.id IN (SELECT o.id FROM pgmoor.elevations AS o \
             WHERE (o.state IN ('requested', 'active') AND o.expire_time <= clock_timestamp()) \
             OR o.record_due <= clock_timestamp() \
             ORDER BY o.expire_time LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING ",
            columns!()
        ))
        .bind(seconds(RECORD_TIME))
        .fetch_all(&mut *connection)
        .await?;
        let elevations = rows.into_iter().map(ServerElevation::try_from);
        Ok(elevations.collect::<Result<_, _>>()?)
    }

    /// The audit trail has the ends of these.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recorded(&self, ids: &[ElevationId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        sqlx::query("UPDATE pgmoor.elevations SET record_due = NULL WHERE id = ANY ($1)")
            .bind(ids)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Forgets elevations that have been over for longer than `age`, and whose end is recorded. Returns how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "DELETE FROM pgmoor.elevations WHERE state IN ('denied', 'ended', 'expired') \
            AND update_time < clock_timestamp() - make_interval(secs => $1) AND record_due IS NULL";
        let pruned = sqlx::query(sql).bind(seconds(age)).execute(&mut *connection);
        Ok(pruned.await?.rows_affected())
    }
}
