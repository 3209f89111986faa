//! UpdateServer.

use domain::access::Permission;
use domain::endpoint::Destination;
use rpc::server::v1::{Server as ServerMessage, UpdateServerRequest, UpdateServerResponse};
use store::Etag;
use store::servers::{NewServer, Server, ServerChange, UpdateServerError};

use super::{convert, owner, place};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};
use crate::{access, mask, resource};

/// Changes a server.
pub(super) async fn update_server(
    api: &Context,
    call: Call<UpdateServerRequest>,
) -> Result<UpdateServerResponse, Error> {
    let Some(message) = call.message.server else {
        return Err(Error::invalid("server", "must be given"));
    };
    let id = resource::server("server.name", &message.name)?;
    let permission = Permission::ServersUpdate;
    let access::Accessed {
        server: before,
        facts,
    } = access::accessed(api, &call.caller, id, permission).await?;
    let mut violations = Violations::default();
    let set = [
        ("display_name", !message.display_name.is_empty()),
        ("group", !message.group.is_empty()),
        ("endpoints", !message.endpoints.is_empty()),
        ("tls", message.tls.is_some()),
        ("maintenance_database", !message.maintenance_database.is_empty()),
        ("username", !message.username.is_empty()),
        ("comment", !message.comment.is_empty()),
        ("owner", !message.owner.is_empty()),
    ];
    let paths = mask::paths(call.message.update_mask, &set, &mut violations);
    if paths.contains(&"group") {
        owner::only(&facts)?;
    }
    let owner = paths.contains(&"owner").then(|| message.owner.clone());
    let mut change = change(message, &paths, &before, &mut violations);
    violations.done()?;
    if let Some(owner) = owner {
        // Whoever gives it away must have had it until then.
        change.etag.get_or_insert_with(|| before.etag.clone());
        change.owner = Some(owner::chosen(api, &call.caller, &facts, &owner).await?);
    }
    if let Some(destination) = &change.destination {
        place::check(api, &call.caller, &moved(&before, destination)).await?;
    }
    let name = change.display_name.clone().unwrap_or(before.display_name);
    let changed = api
        .store
        .servers()
        .update(id, &change)
        .await
        .map_err(|error| match error {
            UpdateServerError::NotFound => access::no_server(id),
            UpdateServerError::EtagMismatch => Error::EtagMismatch,
            UpdateServerError::OwnerNotFound => owner::missing(),
            UpdateServerError::NameTaken => Error::Exists {
                kind: ResourceKind::Server,
                name: name.to_string(),
            },
            UpdateServerError::Store(error) => Error::Store(error),
        })?;
    Ok(UpdateServerResponse {
        server: Some(convert::shown(api, &call.caller, &changed).await?),
    })
}

/// The server as if it were registered where it shall go.
fn moved(before: &Server, destination: &Destination) -> NewServer {
    NewServer {
        id: before.id,
        owner_id: before.owner_id,
        group: before.group.clone(),
        display_name: before.display_name.clone(),
        destination: destination.clone(),
        maintenance_database: before.maintenance_database.clone(),
        username: before.username.clone(),
        comment: before.comment.clone(),
    }
}

fn change(
    message: ServerMessage,
    paths: &[&str],
    before: &Server,
    violations: &mut Violations,
) -> ServerChange {
    let named = |path: &str| paths.contains(&path);
    let mut change = ServerChange {
        etag: (!message.etag.is_empty()).then(|| Etag::new(message.etag)),
        ..ServerChange::default()
    };
    if named("display_name") {
        change.display_name = convert::display_name(&message.display_name, violations);
    }
    if named("group") {
        change.group = convert::group(&message.group, violations);
    }
    if named("maintenance_database") {
        change.maintenance_database =
            convert::maintenance_database(&message.maintenance_database, violations);
    }
    if named("username") {
        change.username = convert::username(&message.username, violations);
    }
    if named("comment") {
        change.comment = convert::comment(message.comment, violations);
    }
    if named("endpoints") || named("tls") {
        let kept = &before.destination;
        let endpoints = match named("endpoints") {
            true => convert::endpoints(&message.endpoints, violations),
            false => Some(kept.endpoints().to_vec()),
        };
        let tls = match named("tls") {
            true => convert::tls(message.tls.as_ref(), violations),
            false => Some(kept.tls().clone()),
        };
        change.destination = endpoints.zip(tls).and_then(|(endpoints, tls)| {
            violations.check("server.endpoints", Destination::new(endpoints, tls))
        });
        // The half that stays is the one that was read: nobody may have changed it since.
        change.etag.get_or_insert_with(|| before.etag.clone());
    }
    change
}
