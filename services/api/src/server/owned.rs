//! A server of the caller.

use domain::access::Caller;
use domain::id::ServerId;
use store::servers::Server;
use telemetry::rpc::Id;

use crate::context::Context;
use crate::error::{Error, ResourceKind};

/// Reads a server of the caller. Another user's answers as a missing one.
pub(crate) async fn owned(api: &Context, caller: &Caller, id: ServerId) -> Result<Server, Error> {
    // The call's closing line says what it was about.
    telemetry::rpc::record(Id::Server, &id);
    let found = api.store.servers().get(id).await?;
    found
        .filter(|server| server.owner_id == caller.user)
        .ok_or_else(|| missing(id))
}

/// What a server that is not there answers.
pub(super) fn missing(id: ServerId) -> Error {
    Error::not_found(ResourceKind::Server, format_args!("servers/{id}"))
}
