//! CancelOperation.

use domain::access::Permission;
use rpc::operation::v1::{CancelOperationRequest, CancelOperationResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, resource};

/// Asks for an operation to be cancelled. One that has ended stays as it is; asking again changes nothing.
pub(super) async fn cancel_operation(
    api: &Context,
    call: Call<CancelOperationRequest>,
) -> Result<CancelOperationResponse, Error> {
    let id = resource::operation("name", &call.message.name)?;
    access::operation(api, &call.caller, id, Permission::OperationsCancel).await?;
    let cancelled = api.store.operations().cancel(id).await?;
    let operation = cancelled.ok_or_else(|| access::no_operation(id))?;
    Ok(CancelOperationResponse {
        operation: Some(convert::operation(&operation)),
    })
}
