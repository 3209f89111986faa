//! An operation of the caller.

use domain::access::Caller;
use domain::id::OperationId;
use store::operations::Operation;
use telemetry::rpc::Id;

use crate::context::Context;
use crate::error::{Error, ResourceKind};

/// Reads an operation of the caller. Another user's answers as a missing one.
pub(super) async fn owned(api: &Context, caller: &Caller, id: OperationId) -> Result<Operation, Error> {
    // The call's closing line says what it was about.
    telemetry::rpc::record(Id::Operation, &id);
    let found = api.store.operations().get(id).await?;
    found
        .filter(|operation| operation.owner_id == caller.user)
        .ok_or_else(|| missing(id))
}

/// What an operation that is not there answers.
pub(super) fn missing(id: OperationId) -> Error {
    Error::not_found(ResourceKind::Operation, format_args!("operations/{id}"))
}
