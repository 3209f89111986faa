//! GetServer, ListServers.

use domain::access::Permission;
use domain::page::PageScope;
use rpc::server::v1::{GetServerRequest, GetServerResponse, ListServersRequest, ListServersResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, paging, resource};

/// Reads a server.
pub(super) async fn get_server(
    api: &Context,
    call: Call<GetServerRequest>,
) -> Result<GetServerResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let server = access::server(api, &call.caller, id, Permission::ServersRead).await?;
    Ok(GetServerResponse {
        server: Some(convert::shown(api, &call.caller, &server).await?),
    })
}

/// Lists the servers the caller may see by group and name.
pub(super) async fn list_servers(
    api: &Context,
    call: Call<ListServersRequest>,
) -> Result<ListServersResponse, Error> {
    let scope = PageScope::new("ListServers").with(&call.caller.user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.store.servers().list(call.caller.user, &page).await?;
    let ids: Vec<_> = page.items.iter().map(|server| server.id).collect();
    let servers = api.store.servers();
    let own = servers.with_personal_credential(call.caller.user, &ids).await?;
    let shown = page
        .items
        .iter()
        .map(|server| convert::server(server, own.contains(&server.id)));
    Ok(ListServersResponse {
        servers: shown.collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
