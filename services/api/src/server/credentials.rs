//! SetPersonalCredential, GetPersonalCredential, DeletePersonalCredential, SetReadOnlyCredential, DeleteReadOnlyCredential.

use std::sync::Arc;

use domain::access::{Caller, Permission};
use domain::credential::CredentialKind;
use domain::id::ServerId;
use domain::name::Identifier;
use rpc::server::v1 as proto;
use secrecy::SecretString;
use store::servers::{NewRoleCredential, RoleCredential, Server, SetCredentialError};

use super::{convert, password};
use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::{Error, ResourceKind, Violations};
use crate::{access, resource};

/// How often a password is sealed anew because the server changed in between.
const ATTEMPTS: usize = 3;

/// A role and its password.
struct Given {
    role: Identifier,
    password: SecretString,
}

/// Sets what the caller logs in to a server with.
pub(super) async fn set_personal_credential(
    api: &Arc<Context>,
    call: Call<proto::SetPersonalCredentialRequest>,
) -> Result<proto::SetPersonalCredentialResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let given = given(&call.message.role, call.message.password)?;
    let kind = CredentialKind::Personal(call.caller.user);
    let server = set(api, &call.caller, id, (kind, Permission::ServersUse), &given).await?;
    let looked = proto::CredentialKind::Personal;
    api.first_looks.begin(api, &call.token, &server, looked);
    Ok(proto::SetPersonalCredentialResponse {
        credential: Some(message(personal(api, &call.caller, id).await?)),
    })
}

/// Reads what the caller logs in to a server with, without its password.
pub(super) async fn get_personal_credential(
    api: &Context,
    call: Call<proto::GetPersonalCredentialRequest>,
) -> Result<proto::GetPersonalCredentialResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    access::server(api, &call.caller, id, Permission::ServersUse).await?;
    Ok(proto::GetPersonalCredentialResponse {
        credential: Some(message(personal(api, &call.caller, id).await?)),
    })
}

/// Forgets what the caller logs in to a server with.
pub(super) async fn delete_personal_credential(
    api: &Context,
    call: Call<proto::DeletePersonalCredentialRequest>,
) -> Result<proto::DeletePersonalCredentialResponse, Error> {
    // Also where the server is out of reach by now: the password is theirs.
    let id = resource::server("name", &call.message.name)?;
    delete(api, id, CredentialKind::Personal(call.caller.user)).await?;
    Ok(proto::DeletePersonalCredentialResponse {})
}

/// Sets what read-only sessions log in to a server with.
pub(super) async fn set_read_only_credential(
    api: &Arc<Context>,
    call: Call<proto::SetReadOnlyCredentialRequest>,
) -> Result<proto::SetReadOnlyCredentialResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let given = given(&call.message.role, call.message.password)?;
    let whose = (CredentialKind::ReadOnly, Permission::ServersUpdate);
    let server = set(api, &call.caller, id, whose, &given).await?;
    let looked = proto::CredentialKind::ReadOnly;
    api.first_looks.begin(api, &call.token, &server, looked);
    Ok(proto::SetReadOnlyCredentialResponse {
        server: Some(convert::shown(api, &call.caller, &server).await?),
    })
}

/// Forgets what read-only sessions log in to a server with.
pub(super) async fn delete_read_only_credential(
    api: &Context,
    call: Call<proto::DeleteReadOnlyCredentialRequest>,
) -> Result<proto::DeleteReadOnlyCredentialResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    access::server(api, &call.caller, id, Permission::ServersUpdate).await?;
    let server = delete(api, id, CredentialKind::ReadOnly).await?;
    Ok(proto::DeleteReadOnlyCredentialResponse {
        server: Some(convert::shown(api, &call.caller, &server).await?),
    })
}

fn given(role: &str, password: String) -> Result<Given, Error> {
    let mut violations = Violations::default();
    let role = violations.check("role", role.parse());
    let password = violations.check("password", chosen(password));
    match (role, password) {
        (Some(role), Some(password)) => Ok(Given { role, password }),
        _ => Err(violations.into_error()),
    }
}

fn chosen(password: String) -> Result<SecretString, &'static str> {
    if password.is_empty() {
        return Err("must not be empty");
    }
    let password = SecretString::from(password);
    password::check(&password)?;
    Ok(password)
}

/// Seals a password for where the server points, and stores it if the server still does.
async fn set(
    api: &Context,
    caller: &Caller,
    id: ServerId,
    (kind, permission): (CredentialKind, Permission),
    given: &Given,
) -> Result<Server, Error> {
    for _ in 0..ATTEMPTS {
        let server = access::server(api, caller, id, permission).await?;
        let Given { role, password } = given;
        let sealed = password::seal(api, (id, kind), role, &server.destination, password).await?;
        let new = NewRoleCredential {
            role: role.clone(),
            credential: sealed,
        };
        let servers = api.store.servers();
        match servers.set_role_credential(id, kind, &new, &server.etag).await {
            Ok(server) => return Ok(server),
            // It may go elsewhere now: the password is sealed for where it goes.
            Err(SetCredentialError::EtagMismatch) => {}
            Err(error) => return Err(failed(error, id)),
        }
    }
    Err(Error::EtagMismatch)
}

async fn delete(api: &Context, id: ServerId, kind: CredentialKind) -> Result<Server, Error> {
    let deleted = api.store.servers().delete_role_credential(id, kind).await;
    deleted
        .map_err(|error| failed(error, id))?
        .ok_or_else(|| missing(id, kind))
}

async fn personal(api: &Context, caller: &Caller, id: ServerId) -> Result<RoleCredential, Error> {
    let kind = CredentialKind::Personal(caller.user);
    let found = api.store.servers().role_credential(id, kind).await?;
    found.ok_or_else(|| missing(id, kind))
}

fn failed(error: SetCredentialError, id: ServerId) -> Error {
    match error {
        SetCredentialError::NotFound => access::no_server(id),
        SetCredentialError::EtagMismatch => Error::EtagMismatch,
        SetCredentialError::Store(error) => Error::Store(error),
        error @ SetCredentialError::SealingKeyUnknown => Error::Fault {
            context: "storing a password",
            source: error.into(),
        },
    }
}

fn missing(id: ServerId, kind: CredentialKind) -> Error {
    let name = match kind {
        CredentialKind::Personal(_) => "personalCredential",
        CredentialKind::ReadOnly | CredentialKind::Shared => "readOnlyCredential",
    };
    Error::not_found(ResourceKind::Credential, format_args!("servers/{id}/{name}"))
}

fn message(credential: RoleCredential) -> proto::PersonalCredential {
    proto::PersonalCredential {
        role: credential.role.to_string(),
        create_time: Some(timestamp(credential.create_time)),
    }
}
