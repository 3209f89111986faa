//! UpdateUser.

use domain::name::DisplayName;
use rpc::user::v1::{UpdateUserRequest, UpdateUserResponse};
use store::Etag;
use store::users::{UpdateUserError, UserChange};

use super::convert;
use super::create_user::only_administrators;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};
use crate::{mask, resource};

/// Changes a user.
pub(super) async fn update_user(
    api: &Context,
    call: Call<UpdateUserRequest>,
) -> Result<UpdateUserResponse, Error> {
    let Some(user) = call.message.user else {
        return Err(Error::invalid("user", "must be given"));
    };
    let id = resource::user("user.name", &user.name, &call.caller)?;
    let mut violations = Violations::default();
    let set = [
        ("display_name", !user.display_name.is_empty()),
        ("administrator", user.administrator),
        ("disabled", user.disabled),
    ];
    let paths = mask::paths(call.message.update_mask, &set, &mut violations);
    let display_name = paths
        .contains(&"display_name")
        .then(|| violations.check("user.display_name", user.display_name.parse::<DisplayName>()))
        .flatten();
    violations.done()?;
    if !call.caller.administrator {
        // Neither made one nor kept from being one by others.
        let target = api.store.users().get(id).await?;
        if paths.contains(&"administrator") || target.is_some_and(|user| user.administrator) {
            only_administrators(&call.caller)?;
        }
    }
    let change = UserChange {
        display_name,
        administrator: paths.contains(&"administrator").then_some(user.administrator),
        disabled: paths.contains(&"disabled").then_some(user.disabled),
        etag: (!user.etag.is_empty()).then(|| Etag::new(user.etag)),
    };
    let changed = api
        .store
        .users()
        .update(id, change)
        .await
        .map_err(|error| cause(error, user.name))?;
    let accounts = api.store.accounts().of(&[id]).await?;
    Ok(UpdateUserResponse {
        user: Some(convert::user(&changed, accounts.get(&id))),
    })
}

/// What became of a change.
pub(super) fn cause(error: UpdateUserError, name: String) -> Error {
    match error {
        UpdateUserError::NotFound => Error::NotFound {
            kind: ResourceKind::User,
            name,
        },
        UpdateUserError::EtagMismatch => Error::EtagMismatch,
        UpdateUserError::LastAdministrator => Error::InUse {
            kind: ResourceKind::User,
            name,
            description: error.to_string(),
            holders: Vec::new(),
        },
        UpdateUserError::Store(error) => Error::Store(error),
    }
}
