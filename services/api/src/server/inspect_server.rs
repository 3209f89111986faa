//! InspectServer.

use rpc::server::v1::{InspectServerRequest, InspectServerResponse};

use super::owned::owned;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{database, resource};

/// Has the pooler that serves a server look what its role may do.
pub(super) async fn inspect_server(
    api: &Context,
    call: Call<InspectServerRequest>,
) -> Result<InspectServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    database::check(&call.message.database)?;
    let instance = owned(api, &call.caller, id).await?.instance_id;
    Ok(api
        .sessions
        .inspect_server(&call.token, instance, call.message)
        .await?)
}
