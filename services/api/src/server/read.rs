//! GetServer, ListServers.

use domain::page::PageScope;
use rpc::server::v1::{GetServerRequest, GetServerResponse, ListServersRequest, ListServersResponse};

use super::convert;
use super::owned::owned;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{paging, resource};

/// Reads a server.
pub(super) async fn get_server(
    api: &Context,
    call: Call<GetServerRequest>,
) -> Result<GetServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let server = owned(api, &call.caller, id).await?;
    Ok(GetServerResponse {
        server: Some(convert::server(&server)),
    })
}

/// Lists the caller's servers by group and name.
pub(super) async fn list_servers(
    api: &Context,
    call: Call<ListServersRequest>,
) -> Result<ListServersResponse, Error> {
    let scope = PageScope::new("ListServers").with(&call.caller.user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.store.servers().list(call.caller.user, &page).await?;
    Ok(ListServersResponse {
        servers: page.items.iter().map(convert::server).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
