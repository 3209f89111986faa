//! ApproveElevation, DenyElevation, EndElevation.

use domain::access::{Caller, Permission};
use rpc::access::v1 as proto;
use store::Etag;
use store::elevations::{ElevationChange, ServerElevation};

use super::{cause, convert, seen};
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, resource};

/// Lets somebody write for a while.
pub(super) async fn approve_elevation(
    api: &Context,
    call: Call<proto::ApproveElevationRequest>,
) -> Result<proto::ApproveElevationResponse, Error> {
    let (server, id) = resource::elevation("name", &call.message.name)?;
    let elevation = seen(api, &call.caller, server, id).await?;
    if elevation.user == call.caller.user {
        return Err(Error::SelfApproval);
    }
    let permission = Permission::ElevationsApprove;
    let registered = access::server(api, &call.caller, server, permission).await?;
    let longest = registered.policy.max_elevation.ok_or(Error::PolicyForbids {
        permission: Permission::ElevationsRequest,
    })?;
    let change = ElevationChange::Approve { longest };
    let changed = change_it(api, &call.caller, &elevation, change, call.message.etag).await?;
    Ok(proto::ApproveElevationResponse {
        elevation: Some(changed),
    })
}

/// Does not let them.
pub(super) async fn deny_elevation(
    api: &Context,
    call: Call<proto::DenyElevationRequest>,
) -> Result<proto::DenyElevationResponse, Error> {
    let (server, id) = resource::elevation("name", &call.message.name)?;
    let elevation = seen(api, &call.caller, server, id).await?;
    access::server(api, &call.caller, server, Permission::ElevationsApprove).await?;
    let deny = ElevationChange::Deny;
    let changed = change_it(api, &call.caller, &elevation, deny, call.message.etag).await?;
    Ok(proto::DenyElevationResponse {
        elevation: Some(changed),
    })
}

/// Ends it before its time.
pub(super) async fn end_elevation(
    api: &Context,
    call: Call<proto::EndElevationRequest>,
) -> Result<proto::EndElevationResponse, Error> {
    let (server, id) = resource::elevation("name", &call.message.name)?;
    let elevation = seen(api, &call.caller, server, id).await?;
    let end = ElevationChange::End;
    let changed = change_it(api, &call.caller, &elevation, end, call.message.etag).await?;
    Ok(proto::EndElevationResponse {
        elevation: Some(changed),
    })
}

async fn change_it(
    api: &Context,
    caller: &Caller,
    elevation: &ServerElevation,
    change: ElevationChange,
    etag: String,
) -> Result<proto::Elevation, Error> {
    let (server, id) = (elevation.server, elevation.id);
    let etag = (!etag.is_empty()).then(|| Etag::new(etag));
    let elevations = api.store.elevations();
    let changed = elevations
        .change(server, id, caller.user, change, etag.as_ref())
        .await;
    let changed = changed.map_err(|error| cause(error, server, id))?;
    Ok(convert::elevation(&changed))
}
