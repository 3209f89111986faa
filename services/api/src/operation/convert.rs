//! Operations between the domain and the wire.

use domain::operation::{OperationFailure, OperationKind, OperationOutcome, OperationPhase, OperationState};
use rpc::operation::v1 as proto;
use store::operations::Operation;

use crate::duration::timestamp;

/// An operation.
pub(crate) fn operation(operation: &Operation) -> proto::Operation {
    let (state, error) = match &operation.state {
        OperationState::Queued => (proto::OperationState::Queued, None),
        OperationState::Running => (proto::OperationState::Running, None),
        OperationState::Ended(OperationOutcome::Succeeded) => (proto::OperationState::Succeeded, None),
        OperationState::Ended(OperationOutcome::Failed(failure)) => {
            (proto::OperationState::Failed, Some(error(failure)))
        }
        OperationState::Ended(OperationOutcome::Cancelled) => (proto::OperationState::Cancelled, None),
    };
    let kind = match operation.kind {
        OperationKind::Backup => proto::OperationKind::Backup,
        OperationKind::Restore => proto::OperationKind::Restore,
    };
    proto::Operation {
        name: format!("operations/{}", operation.id),
        kind: kind.into(),
        state: state.into(),
        done: operation.state.is_done(),
        progress: Some(progress(operation)),
        error,
        server: format!("servers/{}", operation.server_id),
        database: operation.database.to_string(),
        backup: operation
            .backup_id
            .map(|id| format!("backups/{id}"))
            .unwrap_or_default(),
        owner: format!("users/{}", operation.owner_id),
        create_time: Some(timestamp(operation.create_time)),
        start_time: operation.start_time.map(timestamp),
        end_time: operation.end_time.map(timestamp),
        attempt: i32::try_from(operation.attempt).unwrap_or(i32::MAX),
        cancel_requested: operation.cancel_requested,
        log_size_bytes: count(operation.log_size),
    }
}

fn progress(operation: &Operation) -> proto::OperationProgress {
    let progress = &operation.progress;
    let phase = match progress.phase {
        None => proto::OperationPhase::Unspecified,
        Some(OperationPhase::WaitingForSlots) => proto::OperationPhase::WaitingForSlots,
        Some(OperationPhase::Reading) => proto::OperationPhase::Reading,
        Some(OperationPhase::Writing) => proto::OperationPhase::Writing,
        Some(OperationPhase::Finishing) => proto::OperationPhase::Finishing,
    };
    proto::OperationProgress {
        phase: phase.into(),
        bytes_done: count(progress.bytes_done),
        bytes_total: count(progress.bytes_total.unwrap_or(0)),
        objects_done: count(progress.objects_done),
        objects_total: count(progress.objects_total.unwrap_or(0)),
    }
}

fn error(failure: &OperationFailure) -> proto::OperationError {
    proto::OperationError {
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        exit_status: failure.exit_status,
    }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
