//! TestServer.

use rpc::server::v1::{TestServerRequest, TestServerResponse};

use super::owned::owned;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{database, resource};

/// Connects to a server once, on the pooler that serves it.
pub(super) async fn test_server(
    api: &Context,
    call: Call<TestServerRequest>,
) -> Result<TestServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    database::check(&call.message.database)?;
    let instance = owned(api, &call.caller, id).await?.instance_id;
    Ok(api
        .sessions
        .test_server(&call.token, instance, call.message)
        .await?)
}
