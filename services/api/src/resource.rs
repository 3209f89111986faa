//! Names of resources as requests write them: `users/{user}`, `servers/{server}` and so on.
//!
//! Invariant: a name that cannot be one of ours is a wrong field; whether one exists is for the handler to
//! find out.

use std::str::FromStr;

use domain::access::{Caller, Principal, RoleName};
use domain::id::{
    ApiTokenId, BackupId, ElevationId, GrantId, GroupId, InstanceId, LoginId, OperationId, RoleBindingId,
    ServerId, UserId,
};

use crate::error::Error;

/// Reads `prefix{id}`.
fn id<T: FromStr>(field: &str, name: &str, prefix: &str, form: &str) -> Result<T, Error> {
    name.strip_prefix(prefix)
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Error::invalid(field, format_args!("must be of the form {form}")))
}

/// Reads `users/{user}`, or `users/me` for the caller.
pub(crate) fn user(field: &str, name: &str, caller: &Caller) -> Result<UserId, Error> {
    if name == "users/me" {
        Ok(caller.user)
    } else {
        id(field, name, "users/", "users/{user} or users/me")
    }
}

/// Reads `groups/{group}`.
pub(crate) fn group(field: &str, name: &str) -> Result<GroupId, Error> {
    id(field, name, "groups/", "groups/{group}")
}

/// Reads `users/{user}`, `users/me` for the caller, or `groups/{group}`.
pub(crate) fn principal(field: &str, name: &str, caller: &Caller) -> Result<Principal, Error> {
    if name.starts_with("groups/") {
        return group(field, name).map(Principal::Group);
    }
    let form = "must be of the form users/{user}, users/me or groups/{group}";
    let user = user(field, name, caller).map_err(|_| Error::invalid(field, form))?;
    Ok(Principal::User(user))
}

/// Reads `roles/{role}`, built in or not.
pub(crate) fn role(field: &str, name: &str) -> Result<RoleName, Error> {
    name.parse()
        .map_err(|_| Error::invalid(field, "must be of the form roles/{role}"))
}

/// Reads `roleBindings/{binding}`.
pub(crate) fn role_binding(field: &str, name: &str) -> Result<RoleBindingId, Error> {
    id(field, name, "roleBindings/", "roleBindings/{binding}")
}

/// Reads `servers/{server}/grants/{grant}`.
pub(crate) fn grant(field: &str, name: &str) -> Result<(ServerId, GrantId), Error> {
    let form = "must be of the form servers/{server}/grants/{grant}";
    let wrong = || Error::invalid(field, form);
    let (parent, grant) = name.split_once("/grants/").ok_or_else(wrong)?;
    let parent = server(field, parent).map_err(|_| wrong())?;
    Ok((parent, grant.parse().map_err(|_| wrong())?))
}

/// Reads `servers/{server}/elevations/{elevation}`.
pub(crate) fn elevation(field: &str, name: &str) -> Result<(ServerId, ElevationId), Error> {
    let form = "must be of the form servers/{server}/elevations/{elevation}";
    let wrong = || Error::invalid(field, form);
    let (parent, elevation) = name.split_once("/elevations/").ok_or_else(wrong)?;
    let parent = server(field, parent).map_err(|_| wrong())?;
    Ok((parent, elevation.parse().map_err(|_| wrong())?))
}

/// Reads `servers/{server}`.
pub(crate) fn server(field: &str, name: &str) -> Result<ServerId, Error> {
    id(field, name, "servers/", "servers/{server}")
}

/// Reads `instances/{instance}`.
pub(crate) fn instance(field: &str, name: &str) -> Result<InstanceId, Error> {
    id(field, name, "instances/", "instances/{instance}")
}

/// Reads `backups/{backup}`.
pub(crate) fn backup(field: &str, name: &str) -> Result<BackupId, Error> {
    id(field, name, "backups/", "backups/{backup}")
}

/// Reads `operations/{operation}`.
pub(crate) fn operation(field: &str, name: &str) -> Result<OperationId, Error> {
    id(field, name, "operations/", "operations/{operation}")
}

/// Reads `users/{user}/apiTokens/{token}`.
pub(crate) fn api_token(field: &str, name: &str, caller: &Caller) -> Result<(UserId, ApiTokenId), Error> {
    let form = "must be of the form users/{user}/apiTokens/{token}";
    let (owner, token) = name
        .split_once("/apiTokens/")
        .ok_or_else(|| Error::invalid(field, form))?;
    let owner = user(field, owner, caller).map_err(|_| Error::invalid(field, form))?;
    let token = token.parse().map_err(|_| Error::invalid(field, form))?;
    Ok((owner, token))
}

/// Reads `users/{user}/logins/{login}`.
pub(crate) fn login(field: &str, name: &str, caller: &Caller) -> Result<(UserId, LoginId), Error> {
    let form = "must be of the form users/{user}/logins/{login}";
    let (owner, login) = name
        .split_once("/logins/")
        .ok_or_else(|| Error::invalid(field, form))?;
    let owner = user(field, owner, caller).map_err(|_| Error::invalid(field, form))?;
    let login = login.parse().map_err(|_| Error::invalid(field, form))?;
    Ok((owner, login))
}
