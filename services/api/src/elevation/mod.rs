//! Writing for a while where one may only read: the handlers of ElevationService.
//!
//! Invariant: nobody decides upon what they asked for themselves. What an elevation gives is decided by the pooler, from its own
//! reads.

mod convert;
mod decide;
mod expiry;
mod read;
mod request;

use std::sync::Arc;

use domain::access::{Caller, Permission};
use domain::id::{ElevationId, ServerId};
use rpc::access::v1 as proto;
use rpc::access::v1::elevation_service_server::ElevationService;
use store::elevations::{ElevationError, ServerElevation};

pub(crate) use self::expiry::Expiry;
use crate::access;
use crate::context::Context;
use crate::error::{Error, ResourceKind};
use crate::rpcs::rpcs;

/// Serves `pgmoor.access.v1.ElevationService`.
#[derive(Debug)]
pub(crate) struct ElevationRpcs(pub(crate) Arc<Context>);

rpcs! {
    ElevationService for ElevationRpcs {
        request::request_elevation(RequestElevationRequest) -> RequestElevationResponse;
        decide::approve_elevation(ApproveElevationRequest) -> ApproveElevationResponse;
        decide::deny_elevation(DenyElevationRequest) -> DenyElevationResponse;
        decide::end_elevation(EndElevationRequest) -> EndElevationResponse;
        read::get_elevation(GetElevationRequest) -> GetElevationResponse;
        read::list_elevations(ListElevationsRequest) -> ListElevationsResponse;
    }
}

/// The elevation, if the caller asked for it, or may decide upon it.
async fn seen(
    api: &Context,
    caller: &Caller,
    server: ServerId,
    id: ElevationId,
) -> Result<ServerElevation, Error> {
    let found = api.store.elevations().get(server, id).await?;
    let elevation = found.ok_or_else(|| missing(server, id))?;
    if elevation.user != caller.user {
        let may = access::server(api, caller, server, Permission::ElevationsApprove).await;
        // Who may not is not told that there is one.
        may.map_err(|error| match error {
            Error::Store(error) => Error::Store(error),
            _ => missing(server, id),
        })?;
    }
    Ok(elevation)
}

fn missing(server: ServerId, id: ElevationId) -> Error {
    Error::not_found(
        ResourceKind::Elevation,
        format_args!("servers/{server}/elevations/{id}"),
    )
}

fn cause(error: ElevationError, server: ServerId, id: ElevationId) -> Error {
    match error {
        ElevationError::NotFound => missing(server, id),
        ElevationError::LimitReached(reached) => reached.into(),
        ElevationError::OwnApproval => Error::SelfApproval,
        ElevationError::TooLong => Error::PolicyForbids {
            permission: Permission::ElevationsRequest,
        },
        ElevationError::State(state) => Error::ElevationState { state },
        ElevationError::EtagMismatch => Error::EtagMismatch,
        ElevationError::Store(error) => Error::Store(error),
    }
}
