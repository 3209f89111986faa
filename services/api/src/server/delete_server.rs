//! DeleteServer.

use rpc::server::v1::{DeleteServerRequest, DeleteServerResponse};
use store::Etag;
use store::servers::DeleteServerError;

use super::owned::{missing, owned};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::resource;

/// Forgets a server.
pub(super) async fn delete_server(
    api: &Context,
    call: Call<DeleteServerRequest>,
) -> Result<DeleteServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    owned(api, &call.caller, id).await?;
    let etag = (!call.message.etag.is_empty()).then(|| Etag::new(call.message.etag));
    api.store
        .servers()
        .delete(id, etag.as_ref())
        .await
        .map_err(|error| match error {
            DeleteServerError::NotFound => missing(id),
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
