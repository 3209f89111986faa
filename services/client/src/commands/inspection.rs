//! `servers inspect` and `servers inspection-policy`: what PostgreSQL keeps a server's role from.

use std::time::Duration;

use clap::Args;
use rpc::server::v1::{
    GetInspectionPolicyRequest, InspectServerRequest, InspectionPolicy, UpdateInspectionPolicyRequest,
};

use super::credential_option::CredentialOption;
use super::token::wire_duration;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::server_name;

/// How long a look may take: the pooler tries each host with a deadline of its own.
const WAIT: Duration = Duration::from_secs(60);

/// A look at a server's role.
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// The database; without it the maintenance database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
    /// What is known will do if it is no older: 10min, 1h. Without it, it is looked anew
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
    #[command(flatten)]
    credential: CredentialOption,
}

/// What inspections of a server let pass.
#[derive(Debug, Clone, Args)]
pub struct Policy {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// Trust this function not to write, or all of an extension; again for more. Replaces those trusted before
    #[arg(long = "trust", value_name = "FUNCTION", conflicts_with = "trust_none")]
    trusted_functions: Vec<String>,
    /// Trust no function
    #[arg(long)]
    trust_none: bool,
}

impl Inspect {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let request = InspectServerRequest {
            name: server_name::resolve(context, &self.server).await?,
            database: self.database,
            max_age: self.max_age.map(wire_duration),
            credential: self.credential.kind().into(),
        };
        let connection = context.connection()?;
        let client = connection.servers();
        let call = Call::repeatable(context.patient(WAIT));
        let answer = connection
            .call(call, async || {
                client.clone().inspect_server(request.clone()).await
            })
            .await?;
        let found = answer
            .inspection
            .ok_or(ClientError::Incomplete { field: "inspection" })?;
        context.show_message("pgmoor.server.v1.Inspection", &found).await
    }
}

impl Policy {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let name = server_name::resolve(context, &self.server).await?;
        let client = context.connection()?.servers();
        let request = GetInspectionPolicyRequest { name: name.clone() };
        let answer = context
            .read(async || client.clone().get_inspection_policy(request.clone()).await)
            .await?;
        let mut policy = answer.policy.unwrap_or_default();
        if self.trust_none || !self.trusted_functions.is_empty() {
            policy = InspectionPolicy {
                trusted_functions: self.trusted_functions,
            };
            let request = UpdateInspectionPolicyRequest {
                name,
                policy: Some(policy),
            };
            let answer = context
                .read(async || client.clone().update_inspection_policy(request.clone()).await)
                .await?;
            policy = answer.policy.unwrap_or_default();
        }
        context
            .show_message("pgmoor.server.v1.InspectionPolicy", &policy)
            .await
    }
}
