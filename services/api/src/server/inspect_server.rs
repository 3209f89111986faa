//! InspectServer.

use domain::access::Permission;
use rpc::server::v1::{InspectServerRequest, InspectServerResponse};

use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, resource};

/// Has the pooler that serves a server look what its role may do.
pub(super) async fn inspect_server(
    api: &Context,
    call: Call<InspectServerRequest>,
) -> Result<InspectServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let permission = Permission::ServersUse;
    let server = access::database(api, &call.caller, id, permission, &call.message.database).await?;
    let instance = server.instance_id;
    Ok(api
        .sessions
        .inspect_server(&call.token, instance, call.message)
        .await?)
}
