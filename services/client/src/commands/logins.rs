//! `logins`: where one is logged in, and ending it.

use clap::Subcommand;
use rpc::auth::v1::{ListLoginsRequest, Login, RevokeLoginRequest};

use super::users;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time};

/// Logins.
#[derive(Debug, Clone, Subcommand)]
pub enum Logins {
    /// List where you are logged in, newest first
    List {
        /// Whose logins, a login name or users/{user}: for whoever may change users
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// End a login; its tokens are refused within seconds
    #[command(after_help = "Example:\n  pgmoor logins revoke users/…/logins/…")]
    Revoke {
        /// The login's name as `logins list` shows it, users/{user}/logins/{login}
        name: String,
    },
}

impl Logins {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.auth();
        match self {
            Self::List { user } => {
                let user = users::resolve_given(context, user).await?;
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListLoginsRequest {
                        user: user.clone(),
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_logins(request.clone()).await)
                        .await?;
                    Ok((page.logins, page.next_page_token))
                };
                let logins = context.pages(None, page).await?;
                context.show_list(&logins).await
            }
            Self::Revoke { name } => {
                let request = RevokeLoginRequest { name };
                context
                    .read(async || client.clone().revoke_login(request.clone()).await)
                    .await?;
                context.notes.line("ended");
                Ok(())
            }
        }
    }
}

impl Record for Login {
    const MESSAGE: &'static str = "pgmoor.auth.v1.Login";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "client_name",
        "address",
        "provider",
        "create_time",
        "refresh_time",
        "current",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.client_name),
            text(&self.address),
            text(&self.provider),
            time(self.create_time.as_ref()),
            time(self.refresh_time.as_ref()),
            Some(self.current.to_string()),
        ]
    }
}
