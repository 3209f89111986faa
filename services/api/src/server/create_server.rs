//! CreateServer.

use std::sync::Arc;

use domain::credential::CredentialKind;
use domain::endpoint::Destination;
use domain::id::ServerId;
use rpc::server::v1::{self as proto, CreateServerRequest, CreateServerResponse};
use secrecy::SecretString;
use store::servers::{CreateServerError, ImportMode, ImportOutcome, NewServer, Server};

use super::{convert, password, place};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};

/// Registers a server.
pub(super) async fn create_server(
    api: &Arc<Context>,
    call: Call<CreateServerRequest>,
) -> Result<CreateServerResponse, Error> {
    let CreateServerRequest {
        server,
        password,
        validate_only,
    } = call.message;
    let Some(server) = server else {
        return Err(Error::invalid("server", "must be given"));
    };
    let password = (!password.is_empty()).then(|| SecretString::from(password));
    let mut violations = Violations::default();
    if let Some(password) = &password {
        violations.check("password", password::check(password));
    }
    let endpoints = convert::endpoints(&server.endpoints, &mut violations);
    let tls = convert::tls(server.tls.as_ref(), &mut violations);
    let destination = endpoints
        .zip(tls)
        .and_then(|(endpoints, tls)| violations.check("server.endpoints", Destination::new(endpoints, tls)));
    let display_name = convert::display_name(&server.display_name, &mut violations);
    let group = convert::group(&server.group, &mut violations);
    let maintenance_database = convert::maintenance_database(&server.maintenance_database, &mut violations);
    let username = convert::username(&server.username, &mut violations);
    let comment = convert::comment(server.comment, &mut violations);
    let (
        Some(destination),
        Some(display_name),
        Some(group),
        Some(maintenance_database),
        Some(username),
        Some(comment),
    ) = (
        destination,
        display_name,
        group,
        maintenance_database,
        username,
        comment,
    )
    else {
        return Err(violations.into_error());
    };
    violations.done()?;
    let new = NewServer {
        id: ServerId::generate(api.random.as_ref()),
        owner_id: call.caller.user,
        group,
        display_name,
        destination,
        maintenance_database,
        username,
        comment,
    };
    place::check(api, &call.caller, &new).await?;
    if validate_only {
        return validated(api, &new).await;
    }
    let credential = match &password {
        Some(password) => {
            let whose = (new.id, CredentialKind::Shared);
            let sealed = password::seal(api, whose, &new.username, &new.destination, password);
            Some(sealed.await?)
        }
        None => None,
    };
    let created = api
        .store
        .servers()
        .create(&new, credential.as_ref())
        .await
        .map_err(|error| match error {
            CreateServerError::NameTaken => taken(&new),
            CreateServerError::Store(error) => Error::Store(error),
            error @ (CreateServerError::OwnerNotFound | CreateServerError::SealingKeyUnknown) => {
                Error::Fault {
                    context: "registering a server",
                    source: error.into(),
                }
            }
        })?;
    if credential.is_some() {
        let any = proto::CredentialKind::Unspecified;
        api.first_looks.begin(api, &call.token, &created, any);
    }
    Ok(response(&created))
}

/// What would be registered; nothing is.
async fn validated(api: &Context, new: &NewServer) -> Result<CreateServerResponse, Error> {
    let tried = api.store.servers().import(new, ImportMode::Validate).await;
    let tried = tried.map_err(place::import_failed)?;
    if tried.outcome != ImportOutcome::Created {
        return Err(taken(new));
    }
    let mut response = response(&tried.server);
    if let Some(server) = &mut response.server {
        // Neither is there afterwards.
        server.name.clear();
        server.instance.clear();
        server.etag.clear();
    }
    Ok(response)
}

fn taken(new: &NewServer) -> Error {
    Error::Exists {
        kind: ResourceKind::Server,
        name: format!("{} in group {}", new.display_name, new.group),
    }
}

fn response(server: &Server) -> CreateServerResponse {
    CreateServerResponse {
        server: Some(convert::server(server, false)),
    }
}
