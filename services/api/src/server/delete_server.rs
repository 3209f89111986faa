//! DeleteServer.

use domain::access::Permission;
use rpc::server::v1::{DeleteServerRequest, DeleteServerResponse};
use store::Etag;
use store::servers::DeleteServerError;

use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{access, resource};

/// Forgets a server.
pub(super) async fn delete_server(
    api: &Context,
    call: Call<DeleteServerRequest>,
) -> Result<DeleteServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    access::server(api, &call.caller, id, Permission::ServersDelete).await?;
    let etag = (!call.message.etag.is_empty()).then(|| Etag::new(call.message.etag));
    api.store
        .servers()
        .delete(id, etag.as_ref())
        .await
        .map_err(|error| match error {
            DeleteServerError::NotFound => access::no_server(id),
            DeleteServerError::EtagMismatch => Error::EtagMismatch,
            DeleteServerError::InUse { operations } => Error::InUse {
                kind: ResourceKind::Server,
                name: format!("servers/{id}"),
                description: "operations of the server have not ended".to_owned(),
                holders: operations
                    .iter()
                    .map(|operation| format!("operations/{operation}"))
                    .collect(),
            },
            DeleteServerError::Store(error) => Error::Store(error),
        })?;
    Ok(DeleteServerResponse {})
}
