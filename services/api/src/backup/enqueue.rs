//! Queueing what was checked.

use store::operations::{EnqueueError, Enqueued, NewOperation, Operation};
use telemetry::rpc::Id;

use crate::context::Context;
use crate::error::{Error, ResourceKind};

/// Queues an operation, or finds the one that the same request queued before.
pub(super) async fn enqueue(api: &Context, new: &NewOperation) -> Result<Operation, Error> {
    let enqueued = api.store.operations().enqueue(new).await;
    let operation = match enqueued.map_err(|error| failed(new, error))? {
        Enqueued::Created(operation) | Enqueued::Existing(operation) => operation,
    };
    // The call's closing line says what it was about.
    telemetry::rpc::record(Id::Operation, &operation.id);
    telemetry::rpc::record(Id::Server, &operation.server_id);
    Ok(operation)
}

fn failed(new: &NewOperation, error: EnqueueError) -> Error {
    match error {
        // Deleted since they were looked at.
        EnqueueError::ServerNotFound => {
            Error::not_found(ResourceKind::Server, format_args!("servers/{}", new.server_id))
        }
        EnqueueError::BackupNotFound => {
            let name = new.backup_id.map(|id| format!("backups/{id}"));
            Error::not_found(ResourceKind::Backup, name.unwrap_or_default())
        }
        EnqueueError::RequestIdReused => Error::RequestIdReused,
        EnqueueError::LimitReached(reached) => reached.into(),
        EnqueueError::Store(error) => Error::Store(error),
    }
}
