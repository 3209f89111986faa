//! Connections out of an instance's budget, held for as long as an operation uses them.

use std::sync::Arc;
use std::time::Duration;

use domain::id::{InstanceId, OperationId, UserId};
use futures::StreamExt;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::LeaseSlotsRequest;
use rpc::pooler::v1::lease_slots_response::Kind;
use sessions::{Sessions, SlotStream};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::journal::Journal;

/// The pause before slots are announced to the next owner of the instance.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// Slots that are held; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Slots(AbortHandle);

impl Drop for Slots {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for slots. When the pooler that gave them goes, they are announced to the next one; the operation goes on meanwhile,
/// since its connections are there anyway.
pub(crate) async fn lease(
    sessions: &Arc<dyn Sessions>,
    tasks: &TaskTracker,
    instance: InstanceId,
    (operation, user): (OperationId, UserId),
    count: i32,
    journal: &Journal,
) -> Result<Slots, Status> {
    let request = LeaseSlotsRequest {
        instance: format!("instances/{instance}"),
        count,
        operation: format!("operations/{operation}"),
        user: format!("users/{user}"),
        held: false,
    };
    let waiting = |position| {
        journal.line(&format!(
            "pgmoor: waiting for {count} connection(s) of the budget, {position} before"
        ));
    };
    let stream = loop {
        let mut stream = sessions.lease_slots(instance, request.clone()).await?;
        match granted(&mut stream, waiting).await {
            Ok(()) => break stream,
            // Another pooler owns the instance now, and has a queue of its own.
            Err(error) if rpc::error::reason(&error) == Some(ErrorReason::Moved) => {
                tokio::time::sleep(ANNOUNCE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    let sessions = Arc::clone(sessions);
    let holder = tasks.spawn(hold(sessions, instance, request, stream));
    Ok(Slots(holder.abort_handle()))
}

async fn granted(stream: &mut SlotStream, mut waiting: impl FnMut(i32)) -> Result<(), Status> {
    let mut last = None;
    while let Some(response) = stream.next().await {
        match response?.kind {
            Some(Kind::Granted(true)) => return Ok(()),
            Some(Kind::QueuePosition(position)) if last != Some(position) => {
                last = Some(position);
                waiting(position);
            }
            _ => {}
        }
    }
    Err(Status::unavailable("the pooler ended the wait"))
}

async fn hold(
    sessions: Arc<dyn Sessions>,
    instance: InstanceId,
    mut request: LeaseSlotsRequest,
    mut stream: SlotStream,
) {
    // From now on they are in use, whoever counts them.
    request.held = true;
    loop {
        while let Some(Ok(_)) = stream.next().await {}
        tracing::warn!(instance.id = %instance, operation = request.operation, "slots are announced to another pooler");
        stream = loop {
            tokio::time::sleep(ANNOUNCE_PAUSE).await;
            if let Ok(stream) = sessions.lease_slots(instance, request.clone()).await {
                break stream;
            }
        };
    }
}
