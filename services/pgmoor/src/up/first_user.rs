//! The first administrator of a fresh `pgmoor up`.

use std::sync::Arc;

use anyhow::Context;
use auth::Passwords;
use domain::id::UserId;
use domain::name::DisplayName;
use domain::random::Random;
use domain::username::Username;
use secrecy::SecretString;
use store::Store;
use store::users::{CreateUserError, NewUser};

use crate::admin::create_user::{PasswordSource, generate};
use crate::exit::BadArgument;

/// Arguments about the first user. On later starts they are ignored.
#[derive(Debug, clap::Args)]
pub(crate) struct FirstUserArguments {
    /// Login name of the administrator that the first start makes
    #[arg(long, value_name = "NAME", default_value = "admin")]
    username: String,
    #[command(flatten)]
    password: PasswordSource,
}

/// The user that was made.
#[derive(Debug)]
pub(crate) struct FirstUser {
    /// The login name.
    pub(crate) username: String,
    /// The password, when nobody gave one.
    pub(crate) generated_password: Option<SecretString>,
}

/// Makes the administrator where there are no users yet.
///
/// # Errors
/// When the name or the password is not allowed, or the database cannot be used.
pub(crate) async fn ensure(
    arguments: FirstUserArguments,
    store: &Store,
    random: &Arc<dyn Random>,
) -> anyhow::Result<Option<FirstUser>> {
    let bad = |reason: String| BadArgument {
        argument: "--username",
        reason,
    };
    let username: Username = arguments
        .username
        .parse()
        .map_err(|error| bad(format!("{error}")))?;
    let display_name: DisplayName = arguments
        .username
        .parse()
        .map_err(|error| bad(format!("{error}")))?;
    let given = arguments.password.read()?;
    let password = given.clone().unwrap_or_else(|| generate(random.as_ref()));
    let hash = Passwords::new(random.clone(), 1)?
        .hash(&password)
        .await
        .context("the password cannot be used")?;
    let new = NewUser {
        id: UserId::generate(random.as_ref()),
        username,
        display_name,
        password_hash: Some(hash),
        administrator: true,
    };
    match store.users().create_first(new).await {
        Ok(user) => Ok(Some(FirstUser {
            username: user.username.to_string(),
            generated_password: given.is_none().then_some(password),
        })),
        Err(CreateUserError::NotFirst) => Ok(None),
        Err(error) => Err(error).context("the first user was not made"),
    }
}
