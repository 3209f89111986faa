//! DeleteOperation.

use rpc::operation::v1::{DeleteOperationRequest, DeleteOperationResponse};
use store::operations::DeleteOperationError;

use super::owned::{missing, owned};
use crate::context::{Call, Context};
use crate::error::Error;
use crate::resource;

/// Forgets an operation that has ended, with its log.
pub(super) async fn delete_operation(
    api: &Context,
    call: Call<DeleteOperationRequest>,
) -> Result<DeleteOperationResponse, Error> {
    let id = resource::operation("name", &call.message.name)?;
    owned(api, &call.caller, id).await?;
    api.store
        .operations()
        .delete(id)
        .await
        .map_err(|error| match error {
            DeleteOperationError::NotFound => missing(id),
            DeleteOperationError::Running => Error::OperationRunning,
            DeleteOperationError::Store(error) => Error::Store(error),
        })?;
    Ok(DeleteOperationResponse {})
}
