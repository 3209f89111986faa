//! `servers inspect` and `servers inspection-policy`: what PostgreSQL keeps a server's role from.

use clap::Args;
use rpc::server::v1::{
    GetInspectionPolicyRequest, InspectServerRequest, InspectionPolicy, UpdateInspectionPolicyRequest,
};

use super::credential_option::CredentialOption;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::server_name;

/// How long a look may take: the pooler tries each host with a deadline of its own.
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// A look at a server's role.
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// The database; without it the maintenance database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
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
    /// The role may connect to this database; again for more. Replaces those allowed before
    #[arg(long = "allow-database", value_name = "DATABASE")]
    allowed_databases: Vec<String>,
}

impl Inspect {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let request = InspectServerRequest {
            name: server_name::resolve(context, &self.server).await?,
            database: self.database,
            max_age: None,
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
        if self.trust_none || !self.trusted_functions.is_empty() || !self.allowed_databases.is_empty() {
            policy = self.change(policy);
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

    fn change(self, policy: InspectionPolicy) -> InspectionPolicy {
        let or = |given: Vec<String>, present| if given.is_empty() { present } else { given };
        InspectionPolicy {
            trusted_functions: if self.trust_none {
                Vec::new()
            } else {
                or(self.trusted_functions, policy.trusted_functions)
            },
            allowed_databases: or(self.allowed_databases, policy.allowed_databases),
        }
    }
}
