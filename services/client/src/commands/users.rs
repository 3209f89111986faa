//! `users`: the people and workloads that log in.

use clap::Subcommand;
use domain::id::UserId;
use prost_types::FieldMask;
use rpc::user::v1::{
    CreateUserRequest, GetUserRequest, ListUsersRequest, SetPasswordRequest, UpdateUserRequest, User,
    UserKind,
};
use secrecy::ExposeSecret as _;

use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time};
use crate::password::{self, PasswordOptions};

const ME: &str = "users/me";

/// Users.
#[derive(Debug, Clone, Subcommand)]
pub enum Users {
    /// List users by login name
    List,
    /// Show a user
    Get {
        /// The login name, users/{user}, or users/me
        #[arg(default_value = ME)]
        user: String,
    },
    /// Make a local user
    #[command(
        after_help = "Example:\n  pgmoor users create bob --display-name 'Bob Smith' --password-file first-password"
    )]
    Create {
        /// The login name
        username: String,
        /// What people call the user
        #[arg(long, default_value = "", value_name = "NAME")]
        display_name: String,
        /// The user administers pgmoor itself
        #[arg(long)]
        administrator: bool,
        /// A workload: it has no password, but API tokens or tokens of its own
        #[arg(long, conflicts_with_all = ["email", "password_stdin", "password_file"])]
        service_account: bool,
        /// Invite a person by this address: they log in with a provider, without a password here
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// Keep a user from logging in; ends their logins and tokens within seconds
    Disable {
        /// The login name, or users/{user}
        user: String,
    },
    /// Let a disabled user log in again
    Enable {
        /// The login name, or users/{user}
        user: String,
    },
    /// Set a password: your own, or as an administrator anybody's. It ends the user's logins
    SetPassword {
        /// The login name, users/{user}, or users/me
        #[arg(default_value = ME)]
        user: String,
        /// Read the current password from the first line of this file (for your own)
        #[arg(long, value_name = "FILE")]
        current_password_file: Option<std::path::PathBuf>,
        #[command(flatten)]
        password: PasswordOptions,
    },
}

impl Users {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::List => {
                let users = all(context).await?;
                context.show_list(&users).await
            }
            Self::Get { user } => {
                let name = resolve(context, user).await?;
                let client = context.connection()?.users();
                let request = GetUserRequest { name };
                let answer = context
                    .read(async || client.clone().get_user(request.clone()).await)
                    .await?;
                show(context, answer.user).await
            }
            Self::Create {
                username,
                display_name,
                administrator,
                service_account,
                email,
                password,
            } => {
                let without = service_account || (email.is_some() && !password.is_given());
                let password = if without {
                    String::new()
                } else {
                    let question = format!("first password of {username}: ");
                    let chosen = password.chosen(context, &question).await?;
                    chosen.expose_secret().to_owned()
                };
                let kind = if service_account {
                    UserKind::ServiceAccount
                } else {
                    UserKind::Person
                };
                let user = User {
                    username,
                    display_name,
                    administrator,
                    kind: kind.into(),
                    email: email.unwrap_or_default(),
                    ..User::default()
                };
                let request = CreateUserRequest {
                    user: Some(user),
                    password,
                };
                let client = context.connection()?.users();
                let answer = context
                    .change(async || client.clone().create_user(request.clone()).await)
                    .await?;
                show(context, answer.user).await
            }
            Self::Disable { user } => set_disabled(context, user, true).await,
            Self::Enable { user } => set_disabled(context, user, false).await,
            Self::SetPassword {
                user,
                current_password_file,
                password,
            } => {
                let own = user == ME;
                let name = resolve(context, user).await?;
                let current = match current_password_file {
                    Some(path) => password::from_file(&path)?.expose_secret().to_owned(),
                    None if own && password.is_given() => {
                        return Err(ClientError::usage(
                            "give the current password with --current-password-file",
                        ));
                    }
                    None if own => password::ask(context, "current password: ")
                        .await?
                        .expose_secret()
                        .to_owned(),
                    None => String::new(),
                };
                let new_password = password
                    .chosen(context, "new password: ")
                    .await?
                    .expose_secret()
                    .to_owned();
                let request = SetPasswordRequest {
                    name,
                    current_password: current,
                    new_password,
                };
                let client = context.connection()?.users();
                context
                    .change(async || client.clone().set_password(request.clone()).await)
                    .await?;
                context
                    .notes
                    .line("the password is set; logins of the user have ended");
                Ok(())
            }
        }
    }
}

async fn set_disabled(context: &mut Context, user: String, disabled: bool) -> Result<(), ClientError> {
    let name = resolve(context, user).await?;
    let request = UpdateUserRequest {
        user: Some(User {
            name,
            disabled,
            ..User::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["disabled".into()],
        }),
    };
    let client = context.connection()?.users();
    let answer = context
        .read(async || client.clone().update_user(request.clone()).await)
        .await?;
    show(context, answer.user).await
}

async fn show(context: &mut Context, user: Option<User>) -> Result<(), ClientError> {
    context
        .show(&user.ok_or(ClientError::Incomplete { field: "user" })?)
        .await
}

async fn all(context: &mut Context) -> Result<Vec<User>, ClientError> {
    let client = context.connection()?.users();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListUsersRequest {
            page_size,
            page_token,
        };
        let page = context
            .read(async || client.clone().list_users(request.clone()).await)
            .await?;
        Ok((page.users, page.next_page_token))
    };
    context.pages(None, page).await
}

/// As [`resolve`]; empty where nobody is given.
pub(crate) async fn resolve_given(
    context: &mut Context,
    given: Option<String>,
) -> Result<String, ClientError> {
    match given {
        Some(given) => resolve(context, given).await,
        None => Ok(String::new()),
    }
}

/// The name of the user that a login name, an id or a name means.
pub(crate) async fn resolve(context: &mut Context, given: String) -> Result<String, ClientError> {
    if given.starts_with("users/") {
        return Ok(given);
    }
    if given.parse::<UserId>().is_ok() {
        return Ok(format!("users/{given}"));
    }
    let users = all(context).await?;
    // The server compares them without regard to case too.
    let wanted = given.to_lowercase();
    let found = users
        .into_iter()
        .find(|user| user.username.to_lowercase() == wanted);
    found.map(|user| user.name).ok_or(ClientError::NotFound {
        kind: "user",
        name: given,
    })
}

impl Record for User {
    const MESSAGE: &'static str = "pgmoor.user.v1.User";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "username",
        "display_name",
        "administrator",
        "disabled",
        "create_time",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.username),
            text(&self.display_name),
            Some(self.administrator.to_string()),
            Some(self.disabled.to_string()),
            time(self.create_time.as_ref()),
        ]
    }
}
