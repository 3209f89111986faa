//! CancelOperation.

use rpc::operation::v1::{CancelOperationRequest, CancelOperationResponse};

use super::convert;
use super::owned::{missing, owned};
use crate::context::{Call, Context};
use crate::error::Error;
use crate::resource;

/// Asks for an operation to be cancelled. One that has ended stays as it is; asking again changes nothing.
pub(super) async fn cancel_operation(
    api: &Context,
    call: Call<CancelOperationRequest>,
) -> Result<CancelOperationResponse, Error> {
    let id = resource::operation("name", &call.message.name)?;
    owned(api, &call.caller, id).await?;
    let cancelled = api.store.operations().cancel(id).await?;
    let operation = cancelled.ok_or_else(|| missing(id))?;
    Ok(CancelOperationResponse {
        operation: Some(convert::operation(&operation)),
    })
}
