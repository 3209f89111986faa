//! The events of an execution, read on through whichever instance answers where a stream breaks off.

use std::time::Duration;

use rpc::errors::v1::ErrorReason;
use rpc::events::EncodedEvents;
use rpc::query::v1::{ExecutionEvent, ResumeExecutionRequest};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::connection::{Call, Connection};
use crate::error::ClientError;

/// The server gives a sign of life every 15 s.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// How long an execution waits for us where our stream broke off.
pub(super) const GRACE: prost_types::Duration = prost_types::Duration {
    seconds: 30,
    nanos: 0,
};
const RESUME_DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Events {
    connection: Connection,
    stream: Streaming<EncodedEvents>,
    /// The number of the last one.
    last: i64,
}

impl Events {
    /// Those that come after the one of that number.
    pub(super) fn new(connection: Connection, stream: Streaming<EncodedEvents>, last: i64) -> Self {
        Self {
            connection,
            stream,
            last,
        }
    }

    /// The number of the last one that came.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// They go on in another stream.
    pub(super) fn go_on(&mut self, stream: Streaming<EncodedEvents>) {
        self.stream = stream;
    }

    /// The next ones; nothing at the end. `execution` is the name as far as it is known, and `finished` whether all that
    /// is to come has come.
    pub(super) async fn next(
        &mut self,
        execution: &str,
        finished: bool,
    ) -> Result<Option<Vec<ExecutionEvent>>, ClientError> {
        loop {
            let broken = match timeout(SILENCE, self.stream.message()).await {
                Ok(Ok(Some(message))) => {
                    let events = message.events()?;
                    let last = events.iter().map(|event| event.sequence).max();
                    self.last = self.last.max(last.unwrap_or_default());
                    return Ok(Some(events));
                }
                Ok(Ok(None)) if finished => return Ok(None),
                Ok(Ok(None)) => Status::unavailable("the answer broke off"),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable("the server gave no sign of life for a minute"),
            };
            if finished && rpc::error::reason(&broken).is_none() {
                // All has come, but for how the call ended.
                return Ok(None);
            }
            if finished || execution.is_empty() || !may_go_on(&broken) {
                return Err(broken.into());
            }
            match self.resume(execution).await {
                Ok(stream) => self.stream = stream,
                // What the transport says of the end of a stream helps nobody.
                Err(_) if rpc::error::reason(&broken).is_none() => {
                    return Err(Status::unavailable("the answer broke off").into());
                }
                // It says less than what happened first.
                Err(_) => return Err(broken.into()),
            }
        }
    }

    async fn resume(&self, execution: &str) -> Result<Streaming<EncodedEvents>, Status> {
        let request = ResumeExecutionRequest {
            name: execution.to_owned(),
            after_sequence: self.last,
        };
        let client = self.connection.queries();
        self.connection
            .call(Call::repeatable(RESUME_DEADLINE), async || {
                client.clone().resume_execution(request.clone()).await
            })
            .await
    }
}

/// True where the execution may be there though its stream is not.
fn may_go_on(status: &Status) -> bool {
    let reason = rpc::error::reason(status);
    let lost = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled].contains(&status.code());
    match reason {
        // The connection says so.
        None => lost,
        Some(reason) => [
            ErrorReason::PoolerUnavailable,
            ErrorReason::OutcomeUnknown,
            ErrorReason::ShuttingDown,
            ErrorReason::Moved,
        ]
        .contains(&reason),
    }
}
