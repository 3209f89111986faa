//! TestServer.

use domain::access::Permission;
use rpc::server::v1::{TestServerRequest, TestServerResponse};

use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, database, resource};

/// Connects to a server once, on the pooler that serves it.
pub(super) async fn test_server(
    api: &Context,
    call: Call<TestServerRequest>,
) -> Result<TestServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    database::check(&call.message.database)?;
    let use_it = Permission::ServersUse;
    let server = access::database(api, &call.caller, id, use_it, &call.message.database).await?;
    Ok(api
        .sessions
        .test_server(&call.token, server.instance_id, call.message)
        .await?)
}
