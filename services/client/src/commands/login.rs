//! `login` and `logout`: the tokens of a profile.

use clap::Args;
use rpc::auth::v1::{LoginWithPasswordRequest, LogoutRequest};
use secrecy::ExposeSecret as _;
use tonic::Code;

use crate::commands::provider_login::{self, ProviderOptions};
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::password::PasswordOptions;
use crate::profile::{Credentials, ProfileError};

/// Logs in.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pgmoor login --server-url https://pgmoor.example.com --user alice
  pgmoor login --profile staging
  pgmoor login --server-url https://pgmoor.example.com --provider corp
  pgmoor login --provider corp --device
  pgmoor login --user ci --password-stdin < /run/secrets/pgmoor

The address and the user are remembered in ~/.config/pgmoor/config.toml, the tokens in
~/.config/pgmoor/credentials/ for your eyes only. Automation needs no login: make an API
token (pgmoor token create) and set PGMOOR_TOKEN or --token-file.")]
pub struct Login {
    /// The user name; without it the profile's
    #[arg(long, short = 'U', value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordOptions,
    #[command(flatten)]
    provider: ProviderOptions,
}

impl Login {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let profile = context.profile()?;
        let store = profile.credentials.clone().ok_or(ProfileError::NoHome)?;
        if is_readable_on_the_way(&profile.url) {
            context
                .notes
                .line("warning: the connection is not encrypted; use an https:// address");
        }
        if self.user.is_none() && !self.password.is_given() {
            let chosen = provider_login::choose(&self.provider, &profile, context).await?;
            if let Some(provider) = chosen {
                return provider_login::run(self.provider, provider, profile, context).await;
            }
        }
        let username = self
            .user
            .or_else(|| profile.user.clone())
            .ok_or_else(|| ClientError::usage("name the user with --user"))?;
        let question = format!("password of {username} at {}: ", profile.url);
        let password = self.password.existing(context, &question).await?;
        let connection = context.anonymous_connection()?;
        let client = connection.auth();
        let log_in = async || {
            let password = password.expose_secret().to_owned();
            client
                .clone()
                .login_with_password(LoginWithPasswordRequest {
                    username: username.clone(),
                    password,
                })
                .await
        };
        let answer = connection
            .call(Call::once(context.globals.timeout()), log_in)
            .await?;
        let tokens = answer.tokens.ok_or(ClientError::Incomplete { field: "tokens" })?;
        let lock = store.lock().await?;
        store.write(&Credentials::of(&profile.url, &username, tokens), &lock)?;
        profile.remember(&username, None)?;
        context.notes.line(&format!(
            "logged in to {} as {username} (profile {})",
            profile.url, profile.name
        ));
        Ok(())
    }
}

fn is_readable_on_the_way(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://") else {
        return false;
    };
    !["127.", "localhost", "[::1]"]
        .iter()
        .any(|local| authority.starts_with(local))
}

/// Logs out.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The login ends on the server too: its tokens are refused everywhere within seconds.")]
pub struct Logout {}

impl Logout {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let profile = context.profile()?;
        let store = profile.credentials.clone().ok_or(ProfileError::NoHome)?;
        if store.read()?.is_none() {
            context.notes.line("nobody is logged in");
            return Ok(());
        }
        let client = context.login_connection()?.auth();
        let ended = context
            .read(async || client.clone().logout(LogoutRequest {}).await)
            .await;
        match ended {
            // A login that has ended already needs no end.
            Err(ClientError::Status(status)) if status.code() == Code::Unauthenticated => {}
            other => drop(other?),
        }
        let lock = store.lock().await?;
        store.remove(&lock)?;
        context
            .notes
            .line(&format!("logged out (profile {})", profile.name));
        Ok(())
    }
}
