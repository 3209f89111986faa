//! Finds the server a person means: by its name, its id, its display name, or group and display name.

use domain::id::ServerId;
use rpc::server::v1::{ListServersRequest, Server};

use crate::context::Context;
use crate::error::ClientError;

const COLLECTION: &str = "servers/";

/// The name, `servers/{server}`, of the server that `given` means.
pub(crate) async fn resolve(context: &mut Context, given: &str) -> Result<String, ClientError> {
    if given.starts_with(COLLECTION) {
        return Ok(given.to_owned());
    }
    if given.parse::<ServerId>().is_ok() {
        return Ok(format!("{COLLECTION}{given}"));
    }
    let servers = all(context).await?;
    choose(&servers, given)
}

/// All servers of the caller.
pub(crate) async fn all(context: &mut Context) -> Result<Vec<Server>, ClientError> {
    let page = async |context: &mut Context, page_size, page_token: String| {
        let client = context.connection()?.servers();
        let list = async || {
            let request = ListServersRequest {
                page_size,
                page_token: page_token.clone(),
            };
            client.clone().list_servers(request).await
        };
        let page = context.read(list).await?;
        Ok((page.servers, page.next_page_token))
    };
    context.pages(None, page).await
}

fn choose(servers: &[Server], given: &str) -> Result<String, ClientError> {
    let path = |server: &Server| format!("{}/{}", server.group, server.display_name);
    // A display name may hold a slash itself, so a name that fits as a whole wins.
    let mut found: Vec<_> = servers
        .iter()
        .filter(|server| server.display_name == given)
        .collect();
    if found.is_empty() {
        found = servers.iter().filter(|server| path(server) == given).collect();
    }
    match found.as_slice() {
        [server] => Ok(server.name.clone()),
        [] => Err(ClientError::NotFound {
            kind: "server",
            name: given.to_owned(),
        }),
        several => {
            let candidates = several
                .iter()
                .map(|server| format!("{} ({})", path(server), server.name))
                .collect();
            Err(ClientError::Ambiguous {
                name: given.to_owned(),
                candidates,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: &str, group: &str, name: &str) -> Server {
        Server {
            name: format!("servers/{id}"),
            group: group.into(),
            display_name: name.into(),
            ..Server::default()
        }
    }

    #[test]
    fn display_name_means_a_server_when_it_is_unique() {
        let servers = [
            server("1", "prod", "shop"),
            server("2", "test", "shop"),
            server("3", "test", "a/b"),
        ];
        assert_eq!(choose(&servers, "prod/shop").unwrap(), "servers/1");
        assert_eq!(choose(&servers, "a/b").unwrap(), "servers/3");
        assert_eq!(choose(&servers, "test/a/b").unwrap(), "servers/3");
        assert!(matches!(
            choose(&servers, "Shop"),
            Err(ClientError::NotFound { .. })
        ));
        let ambiguous = choose(&servers, "shop").unwrap_err();
        assert_eq!(
            ambiguous.to_string(),
            "\"shop\" may be any of prod/shop (servers/1), test/shop (servers/2)"
        );
    }
}
