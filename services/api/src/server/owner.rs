//! What only who owns a server may do: hand it over, and move it to another group, where other roles may be bound. Whoever
//! else may change it must not come by more that way.

use auth::AuthError;
use domain::access::{Caller, Ownership, Permission, Principal, ServerFacts};

use crate::context::Context;
use crate::error::Error;

const FIELD: &str = "server.owner";

/// Refuses who does not own the server.
pub(super) fn only(facts: &ServerFacts) -> Result<(), Error> {
    match facts.ownership {
        Ownership::User | Ownership::Group(_) => Ok(()),
        Ownership::None => {
            let permission = Permission::ServersUpdate;
            Err(AuthError::PermissionMissing { permission }.into())
        }
    }
}

/// The new owner of a server: a group the caller is in, or the caller.
pub(super) async fn chosen(
    api: &Context,
    caller: &Caller,
    facts: &ServerFacts,
    name: &str,
) -> Result<Principal, Error> {
    only(facts)?;
    let form = |_| {
        Error::invalid(
            FIELD,
            "must be of the form groups/{group}, users/{user} or users/me",
        )
    };
    let owner = match name {
        "users/me" => Principal::User(caller.user),
        name => name.parse().map_err(form)?,
    };
    let allowed = match owner {
        Principal::User(user) => user == caller.user,
        Principal::Group(group) => api.store.groups().has_member(group, caller.user).await?,
    };
    if allowed { Ok(owner) } else { Err(missing()) }
}

/// What an owner that is not there, or not the caller's to name, answers.
pub(super) fn missing() -> Error {
    Error::invalid(FIELD, "must be you, or a group you are in")
}
