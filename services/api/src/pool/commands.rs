//! DrainPooler, KillSession, KillBackend.

use std::time::Duration;

use domain::session::{PoolerId, SessionName};
use rpc::errors::v1::ErrorReason;
use rpc::pool::v1::{
    DrainPoolerRequest, DrainPoolerResponse, KillBackendRequest, KillBackendResponse, KillSessionRequest,
    KillSessionResponse,
};
use sessions::pools::Asked;
use telemetry::rpc::Id;
use tonic::Code;
use tonic_types::ErrorDetails;

use super::names;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::resource;

/// A pooler that is gone is out of the directory after its lease.
const RETRY: Duration = Duration::from_secs(5);

/// Has a pooler take nothing new.
pub(super) async fn drain_pooler(
    api: &Context,
    call: Call<DrainPoolerRequest>,
) -> Result<DrainPoolerResponse, Error> {
    let id = call
        .message
        .name
        .strip_prefix("poolers/")
        .and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| Error::invalid("name", "must be of the form poolers/{pooler}"))?;
    api.pools.drain_pooler(&call.token, PoolerId(id)).await?;
    Ok(DrainPoolerResponse {})
}

/// Ends a session, whosever it is.
pub(super) async fn kill_session(
    api: &Context,
    call: Call<KillSessionRequest>,
) -> Result<KillSessionResponse, Error> {
    let name: SessionName = call
        .message
        .name
        .parse()
        .map_err(|error| Error::invalid("name", error))?;
    telemetry::rpc::record(Id::Session, &name.session);
    let asked = api.pools.kill_session(&call.token, name).await?;
    found(&asked, ResourceKind::Session, &call.message.name)?;
    Ok(KillSessionResponse {})
}

/// Closes a backend, whoever has it.
pub(super) async fn kill_backend(
    api: &Context,
    call: Call<KillBackendRequest>,
) -> Result<KillBackendResponse, Error> {
    let form = "must be of the form instances/{instance}/backends/{pid}";
    let (instance, process_id) = call
        .message
        .name
        .split_once("/backends/")
        .ok_or_else(|| Error::invalid("name", form))?;
    let instance = resource::instance("name", instance)?;
    let process_id = process_id.parse().map_err(|_| Error::invalid("name", form))?;
    let asked = api.pools.kill_backend(&call.token, instance, process_id).await?;
    found(&asked, ResourceKind::Backend, &call.message.name)?;
    Ok(KillBackendResponse {})
}

/// Whether anybody had it. Nobody knows where somebody did not answer.
fn found(asked: &Asked<bool>, kind: ResourceKind, name: &str) -> Result<(), Error> {
    if asked.answers.contains(&true) {
        return Ok(());
    }
    if asked.unreachable.is_empty() {
        return Err(Error::not_found(kind, name));
    }
    let silent = names(&asked.unreachable).join(",");
    Err(rpc::error::status(
        Code::Unavailable,
        ErrorReason::PoolerUnavailable,
        "it was not found, and not every pooler answered",
        [("unreachable_poolers", silent)],
        ErrorDetails::with_retry_info(Some(RETRY)),
    )
    .into())
}
