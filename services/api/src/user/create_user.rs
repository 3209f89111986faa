//! CreateUser.

use auth::{AuthError, PasswordError};
use domain::access::Caller;
use domain::id::UserId;
use domain::name::DisplayName;
use domain::username::Username;
use rpc::user::v1::{CreateUserRequest, CreateUserResponse};
use secrecy::SecretString;
use store::users::{CreateUserError, NewUser};

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};

/// Makes a local user. Without a display name they are called by their login name.
pub(super) async fn create_user(
    api: &Context,
    call: Call<CreateUserRequest>,
) -> Result<CreateUserResponse, Error> {
    let Some(user) = call.message.user else {
        return Err(Error::invalid("user", "must be given"));
    };
    if user.administrator {
        only_administrators(&call.caller)?;
    }
    let mut violations = Violations::default();
    let display_name = if user.display_name.is_empty() {
        &user.username
    } else {
        &user.display_name
    };
    let username = violations.check("user.username", user.username.parse::<Username>());
    let display_name = violations.check("user.display_name", display_name.parse::<DisplayName>());
    let password_hash = match api
        .passwords
        .hash(&SecretString::from(call.message.password))
        .await
    {
        Ok(hash) => Some(hash),
        Err(error) => {
            password_violation(&mut violations, "password", error)?;
            None
        }
    };
    let (Some(username), Some(display_name)) = (username, display_name) else {
        return Err(violations.into_error());
    };
    violations.done()?;
    let new = NewUser {
        id: UserId::generate(api.random.as_ref()),
        username,
        display_name,
        password_hash,
        administrator: user.administrator,
    };
    let created = api.store.users().create(new).await.map_err(|error| match error {
        CreateUserError::UsernameTaken => Error::Exists {
            kind: ResourceKind::User,
            name: user.username,
        },
        CreateUserError::Store(error) => Error::Store(error),
        error @ CreateUserError::NotFirst => Error::Fault {
            context: "creating a user",
            source: error.into(),
        },
    })?;
    Ok(CreateUserResponse {
        user: Some(convert::user(&created)),
    })
}

/// Refuses who is no administrator: nobody gives what they do not have.
pub(super) fn only_administrators(caller: &Caller) -> Result<(), Error> {
    if caller.administrator {
        Ok(())
    } else {
        Err(Error::EscalationDenied)
    }
}

/// Notes a password that cannot be one, or fails where hashing failed.
pub(super) fn password_violation(
    violations: &mut Violations,
    field: &str,
    error: PasswordError,
) -> Result<(), Error> {
    match error {
        PasswordError::TooShort | PasswordError::TooLong => {
            violations.add(field, error);
            Ok(())
        }
        PasswordError::Busy => Err(AuthError::Unavailable.into()),
        error => Err(Error::Fault {
            context: "hashing a password",
            source: error.into(),
        }),
    }
}
