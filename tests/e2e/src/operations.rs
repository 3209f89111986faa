//! Background work as a client follows it.

use std::time::Duration;

use rpc::operation::v1::{Operation, WaitOperationRequest};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::Client;

/// How long an operation of a test may take.
const DEADLINE: Duration = Duration::from_secs(60);

impl Client {
    /// Waits until an operation has ended and returns it, however it ended.
    ///
    /// # Errors
    /// What WaitOperation answers; DEADLINE_EXCEEDED when the operation has not ended within a minute.
    pub async fn operation_ended(&self, name: &str) -> Result<Operation, Status> {
        let end = Instant::now() + DEADLINE;
        let mut operations = self.operations();
        loop {
            let request = WaitOperationRequest {
                name: name.to_owned(),
                timeout: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
            };
            let late = |_| Status::deadline_exceeded(format!("{name} has not ended within {DEADLINE:?}"));
            let response = timeout_at(end, operations.wait_operation(request))
                .await
                .map_err(late)??;
            let operation = response.into_inner().operation;
            let operation = operation.ok_or_else(|| Status::internal("the response has no operation"))?;
            if operation.done {
                return Ok(operation);
            }
        }
    }
}
