//! `servers policy`: what a server allows.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rpc::access::v1::{
    CredentialMode, GetServerPolicyRequest, PolicyPreset, ServerPolicy, Tenancy, UpdateServerPolicyRequest,
};

use super::grants::AccessOption;
use super::token::wire_duration;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, word};
use crate::server_name;

/// A policy that is ready made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PresetOption {
    /// Everything is allowed
    Staging,
    /// Nothing is written, no backup is made and none restored
    Production,
}

/// What a server allows: shown, or changed where an option is given. What is not named stays.
#[derive(Debug, Clone, Args)]
pub struct Policy {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// A policy that is ready made. Databases, elevations and credentials stay unless they are named
    #[arg(long, value_enum, value_name = "PRESET", conflicts_with_all = ["environment", "ceiling", "no_backups", "no_restores"])]
    preset: Option<PresetOption>,
    /// What the server is for
    #[arg(long, value_name = "LABEL")]
    environment: Option<String>,
    /// The most that anybody may do
    #[arg(long, value_enum, value_name = "ACCESS")]
    ceiling: Option<AccessOption>,
    /// A database that may be used; again for more. No others may then
    #[arg(long = "database", short, value_name = "DATABASE")]
    databases: Vec<String>,
    /// All databases may be used
    #[arg(long, conflicts_with = "databases")]
    all_databases: bool,
    /// No backups may be made
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_backups: Option<bool>,
    /// No backups may be restored
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_restores: Option<bool>,
    /// The longest that somebody may be let write for, such as 1h; 0s: nobody may
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_elevation: Option<Duration>,
    /// Who has no credential of their own there is refused
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    personal_only: Option<bool>,
}

impl Policy {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let server = server_name::resolve(context, &self.server).await?;
        let client = context.connection()?.grants();
        let request = GetServerPolicyRequest {
            server: server.clone(),
        };
        let present = context
            .read(async || client.clone().get_server_policy(request.clone()).await)
            .await?;
        let missing = ClientError::Incomplete { field: "policy" };
        let mut policy = present.policy.ok_or(missing)?;
        if self.changes() {
            let preset = match self.preset {
                None => PolicyPreset::Unspecified,
                Some(PresetOption::Staging) => PolicyPreset::Staging,
                Some(PresetOption::Production) => PolicyPreset::Production,
            };
            let request = UpdateServerPolicyRequest {
                server,
                preset: preset.into(),
                policy: Some(self.change(policy)),
                // What somebody else changes meanwhile is not undone.
                etag: present.etag,
            };
            let answer = context
                .change(async || client.clone().update_server_policy(request.clone()).await)
                .await?;
            let missing = ClientError::Incomplete { field: "policy" };
            policy = answer.policy.ok_or(missing)?;
        }
        context.show(&policy).await
    }

    fn changes(&self) -> bool {
        self.preset.is_some()
            || self.environment.is_some()
            || self.ceiling.is_some()
            || !self.databases.is_empty()
            || self.all_databases
            || self.no_backups.is_some()
            || self.no_restores.is_some()
            || self.max_elevation.is_some()
            || self.personal_only.is_some()
    }

    fn change(self, mut policy: ServerPolicy) -> ServerPolicy {
        if let Some(environment) = self.environment {
            policy.environment = environment;
        }
        if let Some(ceiling) = self.ceiling {
            policy.access_ceiling = ceiling.level();
        }
        if self.all_databases {
            policy.set_tenancy(Tenancy::SingleTenant);
            policy.databases.clear();
        }
        if !self.databases.is_empty() {
            policy.set_tenancy(Tenancy::MultiTenant);
            policy.databases = self.databases;
        }
        if let Some(forbidden) = self.no_backups {
            policy.backups_forbidden = forbidden;
        }
        if let Some(forbidden) = self.no_restores {
            policy.restores_forbidden = forbidden;
        }
        if let Some(longest) = self.max_elevation {
            policy.max_elevation = Some(wire_duration(longest));
        }
        if let Some(personal_only) = self.personal_only {
            policy.set_credential_mode(match personal_only {
                true => CredentialMode::PersonalOnly,
                false => CredentialMode::Shared,
            });
        }
        policy
    }
}

impl Record for ServerPolicy {
    const MESSAGE: &'static str = "pgmoor.access.v1.ServerPolicy";
    const COLUMNS: &'static [&'static str] = &["environment", "access_ceiling", "tenancy", "databases"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.environment),
            word(self.access_ceiling().as_str_name(), "ACCESS_LEVEL_"),
            word(self.tenancy().as_str_name(), "TENANCY_"),
            text(&self.databases.join(",")),
        ]
    }
}
