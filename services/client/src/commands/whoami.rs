//! `whoami`.

use clap::Args;
use rpc::auth::v1::{WhoAmIRequest, WhoAmIResponse};

use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time, word};

/// Shows who the caller is and how the server recognised them.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  pgmoor whoami --format json")]
pub struct Whoami {}

impl Whoami {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.auth();
        let answer = context
            .read(async || client.clone().who_am_i(WhoAmIRequest {}).await)
            .await?;
        context.show(&answer).await
    }
}

impl Record for WhoAmIResponse {
    const MESSAGE: &'static str = "pgmoor.auth.v1.WhoAmIResponse";
    const COLUMNS: &'static [&'static str] = &[
        "user",
        "username",
        "display_name",
        "administrator",
        "credential_kind",
        "expire_time",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.user),
            text(&self.username),
            text(&self.display_name),
            Some(self.administrator.to_string()),
            word(self.credential_kind().as_str_name(), "CREDENTIAL_KIND_"),
            time(self.expire_time.as_ref()),
        ]
    }
}
