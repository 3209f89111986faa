//! PauseInstance, ResumeInstance, ReconnectInstance.

use domain::id::InstanceId;
use rpc::pool::v1::{
    PauseInstanceRequest, PauseInstanceResponse, ReconnectInstanceRequest, ReconnectInstanceResponse,
    ResumeInstanceRequest, ResumeInstanceResponse,
};
use sessions::UserToken;

use super::names;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::resource;

/// Pauses an instance.
pub(super) async fn pause_instance(
    api: &Context,
    call: Call<PauseInstanceRequest>,
) -> Result<PauseInstanceResponse, Error> {
    let unreachable_poolers = set_paused(api, &call.token, &call.message.name, true).await?;
    Ok(PauseInstanceResponse { unreachable_poolers })
}

/// Resumes it.
pub(super) async fn resume_instance(
    api: &Context,
    call: Call<ResumeInstanceRequest>,
) -> Result<ResumeInstanceResponse, Error> {
    let unreachable_poolers = set_paused(api, &call.token, &call.message.name, false).await?;
    Ok(ResumeInstanceResponse { unreachable_poolers })
}

/// Writes it down, so that it holds whoever owns the instance, and tells those who may own it now. Returns who was not told.
async fn set_paused(
    api: &Context,
    token: &UserToken,
    name: &str,
    paused: bool,
) -> Result<Vec<String>, Error> {
    let id = resource::instance("name", name)?;
    if !api.store.instances().set_paused(id, paused).await? {
        return Err(Error::not_found(ResourceKind::Instance, name));
    }
    let asked = api.pools.refresh_instance(token, id).await?;
    Ok(names(&asked.unreachable))
}

/// Has an instance's backends replaced.
pub(super) async fn reconnect_instance(
    api: &Context,
    call: Call<ReconnectInstanceRequest>,
) -> Result<ReconnectInstanceResponse, Error> {
    let id: InstanceId = resource::instance("name", &call.message.name)?;
    if api.store.instances().get(id).await?.is_none() {
        return Err(Error::not_found(ResourceKind::Instance, &call.message.name));
    }
    let asked = api.pools.reconnect_instance(&call.token, id).await?;
    let backends: usize = asked.answers.iter().sum();
    Ok(ReconnectInstanceResponse {
        backends: i32::try_from(backends).unwrap_or(i32::MAX),
        unreachable_poolers: names(&asked.unreachable),
    })
}
