//! `explain-access`: what a user may do with a server, and by which rules.

use clap::Args;
use rpc::access::v1::{ExplainAccessRequest, ExplainAccessResponse, ExplainedRule};

use super::users;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, word};
use crate::server_name;

/// What is to be explained.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  pgmoor explain-access --server shop --permission sessions.use --database orders"
)]
pub struct ExplainAccess {
    /// The server: its name, id, display name, or group/name
    #[arg(long, short)]
    server: String,
    /// A permission, or a method such as pgmoor.query.v1.QueryService/OpenSession
    #[arg(long, value_name = "PERMISSION")]
    permission: String,
    /// The database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
    /// Whom it is about: a login name, or users/{user}
    #[arg(long, default_value = "users/me", value_name = "USER")]
    user: String,
}

impl ExplainAccess {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let request = ExplainAccessRequest {
            resource: server_name::resolve(context, &self.server).await?,
            principal: users::resolve(context, self.user).await?,
            permission: self.permission,
            database: self.database,
        };
        let client = context.connection()?.roles();
        let answer = context
            .read(async || client.clone().explain_access(request.clone()).await)
            .await?;
        let verdict = if answer.allowed { "allowed" } else { "denied" };
        let ExplainAccessResponse {
            permission,
            access,
            rules,
            ..
        } = answer;
        context
            .notes
            .line(&format!("{permission} is {verdict}; access is {access}"));
        context.show_list(&rules).await
    }
}

impl Record for ExplainedRule {
    const MESSAGE: &'static str = "pgmoor.access.v1.ExplainedRule";
    const COLUMNS: &'static [&'static str] = &["rule", "effect", "name", "description"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.rule),
            word(self.effect().as_str_name(), "RULE_EFFECT_"),
            text(&self.name),
            text(&self.description),
        ]
    }
}
