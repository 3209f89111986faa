//! GetOperation, ListOperations.

use domain::access::Permission;
use domain::page::PageScope;
use rpc::operation::v1::{
    GetOperationRequest, GetOperationResponse, ListOperationsRequest, ListOperationsResponse,
};

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, paging, resource};

/// Reads an operation.
pub(super) async fn get_operation(
    api: &Context,
    call: Call<GetOperationRequest>,
) -> Result<GetOperationResponse, Error> {
    let id = resource::operation("name", &call.message.name)?;
    let operation = access::operation(api, &call.caller, id, Permission::OperationsRead).await?;
    Ok(GetOperationResponse {
        operation: Some(convert::operation(&operation)),
    })
}

/// Lists the operations the caller may see, newest first.
pub(super) async fn list_operations(
    api: &Context,
    call: Call<ListOperationsRequest>,
) -> Result<ListOperationsResponse, Error> {
    let scope = PageScope::new("ListOperations").with(&call.caller.user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.store.operations().list(call.caller.user, &page).await?;
    Ok(ListOperationsResponse {
        operations: page.items.iter().map(convert::operation).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
