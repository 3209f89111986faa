//! GetElevation, ListElevations.

use domain::page::PageScope;
use rpc::access::v1 as proto;
use store::elevations::ElevationFilter;

use super::{convert, seen};
use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::{paging, resource};

/// Reads an elevation.
pub(super) async fn get_elevation(
    api: &Context,
    call: Call<proto::GetElevationRequest>,
) -> Result<proto::GetElevationResponse, Error> {
    let (server, id) = resource::elevation("name", &call.message.name)?;
    let elevation = seen(api, &call.caller, server, id).await?;
    Ok(proto::GetElevationResponse {
        elevation: Some(convert::elevation(&elevation)),
    })
}

/// Lists elevations.
pub(super) async fn list_elevations(
    api: &Context,
    call: Call<proto::ListElevationsRequest>,
) -> Result<proto::ListElevationsResponse, Error> {
    let request = call.message;
    let server = match request.parent.as_str() {
        "" => None,
        parent => Some(resource::server("parent", parent)?),
    };
    let mut violations = Violations::default();
    let states = convert::states(&request.states, &mut violations);
    violations.done()?;
    let named: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    let scope = PageScope::new("ListElevations")
        .with(&request.parent)
        .with(&named.join(","));
    let page = paging::request(&scope, request.page_size, &request.page_token)?;
    let filter = ElevationFilter { server, states };
    let page = api
        .store
        .elevations()
        .list(call.caller.user, &filter, &page)
        .await?;
    Ok(proto::ListElevationsResponse {
        elevations: page.items.iter().map(convert::elevation).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
