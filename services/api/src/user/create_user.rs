//! CreateUser.

use auth::{AuthError, PasswordError};
use domain::access::Caller;
use domain::id::UserId;
use domain::name::DisplayName;
use domain::username::Username;
use rpc::user::v1::{CreateUserRequest, CreateUserResponse, User, UserKind};
use secrecy::SecretString;
use store::accounts::Account;
use store::users::{CreateUserError, NewUser};

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};

/// Makes a user. Without a display name they are called by their login name.
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
    let account = account(&user, &mut violations);
    let password_hash = if call.message.password.is_empty() && account != (Account::Person { email: None }) {
        None
    } else {
        password_hash(api, call.message.password, &account, &mut violations).await?
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
    let created = api.store.accounts().create(new, &account).await;
    let created = created.map_err(|error| match error {
        CreateUserError::UsernameTaken => Error::Exists {
            kind: ResourceKind::User,
            name: user.username,
        },
        CreateUserError::EmailTaken => Error::Exists {
            kind: ResourceKind::User,
            name: user.email,
        },
        CreateUserError::Store(error) => Error::Store(error),
        error @ CreateUserError::NotFirst => Error::Fault {
            context: "creating a user",
            source: error.into(),
        },
    })?;
    Ok(CreateUserResponse {
        user: Some(convert::user(&created, Some(&account))),
    })
}

/// Refuses who is no administrator: nobody gives what they do not have.
pub(crate) fn only_administrators(caller: &Caller) -> Result<(), Error> {
    if caller.administrator {
        Ok(())
    } else {
        Err(Error::EscalationDenied)
    }
}

/// What kind of user is to be made.
fn account(user: &User, violations: &mut Violations) -> Account {
    let email = user.email.to_lowercase();
    let fits = email.len() <= 320 && !email.contains(|char: char| char.is_whitespace() || char.is_control());
    match (UserKind::try_from(user.kind), email.as_str()) {
        (Ok(UserKind::ServiceAccount), "") => Account::ServiceAccount,
        (Ok(UserKind::ServiceAccount), _) => {
            violations.add("user.email", "must be empty for a service account");
            Account::ServiceAccount
        }
        (Ok(UserKind::Unspecified | UserKind::Person), "") => Account::Person { email: None },
        (Ok(UserKind::Unspecified | UserKind::Person), _) => {
            if !fits
                || email
                    .split_once('@')
                    .is_none_or(|(name, domain)| name.is_empty() || domain.is_empty())
            {
                violations.add("user.email", "must be an e-mail address");
            }
            Account::Person { email: Some(email) }
        }
        (Err(_), _) => {
            violations.add("user.kind", "is not one of the known kinds");
            Account::Person { email: None }
        }
    }
}

/// The hash of the first password, with a note of what is wrong with it.
async fn password_hash(
    api: &Context,
    password: String,
    account: &Account,
    violations: &mut Violations,
) -> Result<Option<SecretString>, Error> {
    if *account == Account::ServiceAccount {
        violations.add("password", "must be empty for a service account");
        return Ok(None);
    }
    match api.passwords.hash(&SecretString::from(password)).await {
        Ok(hash) => Ok(Some(hash)),
        Err(error) => {
            password_violation(violations, "password", error)?;
            Ok(None)
        }
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
