//! DeleteOperation.

use domain::access::Permission;
use rpc::operation::v1::{DeleteOperationRequest, DeleteOperationResponse};
use store::operations::DeleteOperationError;

use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, resource};

/// Forgets an operation that has ended, with its log.
pub(super) async fn delete_operation(
    api: &Context,
    call: Call<DeleteOperationRequest>,
) -> Result<DeleteOperationResponse, Error> {
    let id = resource::operation("name", &call.message.name)?;
    access::operation(api, &call.caller, id, Permission::OperationsCancel).await?;
    api.store
        .operations()
        .delete(id)
        .await
        .map_err(|error| match error {
            DeleteOperationError::NotFound => access::no_operation(id),
            DeleteOperationError::Running => Error::OperationRunning,
            DeleteOperationError::Store(error) => Error::Store(error),
        })?;
    Ok(DeleteOperationResponse {})
}
