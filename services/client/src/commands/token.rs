//! `token`: API tokens for automation.

use std::time::Duration;

use clap::Subcommand;
use rpc::auth::v1::{ApiToken, CreateApiTokenRequest, ListApiTokensRequest, RevokeApiTokenRequest};

use super::users;
use crate::context::Context;
use crate::error::ClientError;
use crate::globals::Format;
use crate::output::record::{Record, text, time};

/// API tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum Token {
    /// Make a token and print it; it is never shown again
    #[command(after_help = "\
Examples:
  pgmoor token create ci --lifetime 90days > token
  PGMOOR_TOKEN=$(cat token) pgmoor whoami")]
    Create {
        /// What you call it
        name: String,
        /// How long it lives, for example 12h or 90days; without it, until it is revoked
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
        lifetime: Option<Duration>,
        /// The service account it is for, its name or users/{user}; without it, you
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// List tokens, newest first
    List {
        /// The user whose tokens are listed, a login name or users/{user}; without it, you
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// End a token
    #[command(after_help = "Example:\n  pgmoor token revoke users/…/apiTokens/…")]
    Revoke {
        /// The token's name as `token list` shows it, users/{user}/apiTokens/{token}
        name: String,
    },
}

impl Token {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.auth();
        match self {
            Self::Create { name, lifetime, user } => {
                let request = CreateApiTokenRequest {
                    display_name: name,
                    lifetime: lifetime.map(wire_duration),
                    user: users::resolve_given(context, user).await?,
                };
                let answer = context
                    .change(async || client.clone().create_api_token(request.clone()).await)
                    .await?;
                match context.globals.format {
                    Format::Json => {
                        context
                            .show_message("pgmoor.auth.v1.CreateApiTokenResponse", &answer)
                            .await
                    }
                    Format::Table | Format::Csv => context.show_text(&format!("{}\n", answer.token)).await,
                }
            }
            Self::List { user } => {
                let user = users::resolve_given(context, user).await?;
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListApiTokensRequest {
                        page_size,
                        page_token,
                        user: user.clone(),
                    };
                    let page = context
                        .read(async || client.clone().list_api_tokens(request.clone()).await)
                        .await?;
                    Ok((page.api_tokens, page.next_page_token))
                };
                let tokens = context.pages(None, page).await?;
                context.show_list(&tokens).await
            }
            Self::Revoke { name } => {
                let request = RevokeApiTokenRequest { name };
                context
                    .read(async || client.clone().revoke_api_token(request.clone()).await)
                    .await?;
                context.notes.line("revoked");
                Ok(())
            }
        }
    }
}

/// A length of time as the API takes it; cut to what it can hold.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

impl Record for ApiToken {
    const MESSAGE: &'static str = "pgmoor.auth.v1.ApiToken";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "display_name",
        "create_time",
        "expire_time",
        "last_use_time",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.display_name),
            time(self.create_time.as_ref()),
            time(self.expire_time.as_ref()),
            time(self.last_use_time.as_ref()),
        ]
    }
}
