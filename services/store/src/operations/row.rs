//! The row of an operation.

use domain::id::{BackupId, OperationId, ServerId, UserId};
use domain::operation::{OperationFailure, OperationOutcome, OperationProgress, OperationState};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Operation;
use crate::error::Inconsistency;

#[derive(sqlx::FromRow)]
pub(super) struct OperationRow {
    id: Uuid,
    owner_id: Uuid,
    kind: String,
    state: String,
    server_id: Uuid,
    database: String,
    backup_id: Option<Uuid>,
    request: Value,
    phase: Option<String>,
    bytes_done: i64,
    bytes_total: Option<i64>,
    objects_done: i64,
    objects_total: Option<i64>,
    error_reason: Option<String>,
    error_message: Option<String>,
    exit_status: Option<i32>,
    attempt: i32,
    cancel_requested: bool,
    log_size: i64,
    create_time: OffsetDateTime,
    start_time: Option<OffsetDateTime>,
    end_time: Option<OffsetDateTime>,
}

impl TryFrom<OperationRow> for Operation {
    type Error = Inconsistency;

    fn try_from(row: OperationRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("operations", column, row.id);
        let count = |value: i64, column| u64::try_from(value).map_err(|_| wrong(column));
        let state = match (row.state.as_str(), row.error_reason, row.error_message) {
            ("queued", None, None) => OperationState::Queued,
            ("running", None, None) => OperationState::Running,
            ("succeeded", None, None) => OperationState::Ended(OperationOutcome::Succeeded),
            ("cancelled", None, None) => OperationState::Ended(OperationOutcome::Cancelled),
            ("failed", Some(reason), Some(message)) => {
                let failure = OperationFailure {
                    reason,
                    message,
                    exit_status: row.exit_status,
                };
                OperationState::Ended(OperationOutcome::Failed(failure))
            }
            _ => return Err(wrong("state")),
        };
        let phase = row.phase.map(|phase| phase.parse()).transpose();
        let progress = OperationProgress {
            phase: phase.map_err(|_| wrong("phase"))?,
            bytes_done: count(row.bytes_done, "bytes_done")?,
            bytes_total: row
                .bytes_total
                .map(|total| count(total, "bytes_total"))
                .transpose()?,
            objects_done: count(row.objects_done, "objects_done")?,
            objects_total: row
                .objects_total
                .map(|total| count(total, "objects_total"))
                .transpose()?,
        };
        Ok(Self {
            id: OperationId::from_uuid(row.id),
            owner_id: UserId::from_uuid(row.owner_id),
            kind: row.kind.parse().map_err(|_| wrong("kind"))?,
            state,
            server_id: ServerId::from_uuid(row.server_id),
            database: row.database.parse().map_err(|_| wrong("database"))?,
            backup_id: row.backup_id.map(BackupId::from_uuid),
            request: row.request,
            progress,
            attempt: row.attempt.try_into().map_err(|_| wrong("attempt"))?,
            cancel_requested: row.cancel_requested,
            log_size: count(row.log_size, "log_size")?,
            create_time: row.create_time,
            start_time: row.start_time,
            end_time: row.end_time,
        })
    }
}
