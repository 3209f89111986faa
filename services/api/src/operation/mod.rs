//! Background work: the handlers of OperationService.
//!
//! Invariant: an operation is its owner's, and theirs who may see those of its server; to everybody else it is as good as
//! missing; and what is told of
//! one is what the config database says, whichever instance is asked.

mod cancel_operation;
pub(crate) mod convert;
mod delete_operation;
mod read;
mod read_operation_log;
mod wait_operation;
mod waits;

use std::sync::Arc;

use rpc::operation::v1 as proto;
use rpc::operation::v1::operation_service_server::OperationService;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::rpcs::rpcs;

pub(crate) use waits::Waits;

/// Serves `pgmoor.operation.v1.OperationService`.
#[derive(Debug)]
pub(crate) struct OperationRpcs(pub(crate) Arc<Context>);

rpcs! {
    OperationService for OperationRpcs {
        read::get_operation(GetOperationRequest) -> GetOperationResponse;
        read::list_operations(ListOperationsRequest) -> ListOperationsResponse;
        read_operation_log::read_operation_log(ReadOperationLogRequest) -> ReadOperationLogResponse;
        cancel_operation::cancel_operation(CancelOperationRequest) -> CancelOperationResponse;
        delete_operation::delete_operation(DeleteOperationRequest) -> DeleteOperationResponse;
    }

    async fn wait_operation(
        &self,
        request: Request<proto::WaitOperationRequest>,
    ) -> Result<Response<proto::WaitOperationResponse>, Status> {
        let deadline = wait_operation::deadline(request.metadata());
        let call = self.0.call(request)?;
        self.0.answer(wait_operation::wait_operation(&self.0, call, deadline).await)
    }
}
