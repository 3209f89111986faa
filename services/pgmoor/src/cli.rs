//! The command line. Only what works is listed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use config::{Config, Environment};
use telemetry::Telemetry;

use crate::{admin, check, migrate, roles, up};

/// A gRPC control plane for teams that share PostgreSQL servers.
#[derive(Debug, Parser)]
#[command(name = "pgmoor", version, arg_required_else_help = true, after_help = client::EXIT_STATUS_HELP)]
pub(crate) struct Cli {
    /// Configuration file (TOML). The environment wins over it: PGMOOR_<SECTION>__<KEY>,
    /// PGMOOR_CONFIG_DATABASE_URL
    #[arg(
        long,
        global = true,
        env = "PGMOOR_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    client: client::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Client(client::Command),
    #[command(flatten)]
    Operator(OperatorCommand),
}

/// What operators run: the roles, and what is done around them.
#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Run every role in one process, with a private PostgreSQL for pgmoor's own state
    Up(up::Arguments),
    /// Serve the public gRPC API
    Api,
    /// Own the connections to PostgreSQL servers, and the query sessions on them
    Pooler,
    /// Run operations: backups and restores
    Worker,
    /// Bring the config database's schema up to date
    Migrate,
    /// Try the configuration out and say what to mend
    Check(check::Arguments),
    /// Certificates, keys and the first user
    #[command(subcommand)]
    Admin(admin::Command),
}

impl Cli {
    /// Runs the command. A role puts what is to be flushed at the end into `telemetry`.
    ///
    /// # Errors
    /// Why the command failed; [`crate::exit::report`] tells what status that means.
    pub(crate) async fn run(self, telemetry: &mut Option<Telemetry>) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Client(command) => Ok(client::run(command, self.client, client::Io::process())
                .await
                .into()),
            Command::Operator(command) => {
                let run = Box::pin(command.run(self.config.as_deref(), telemetry));
                run.await.map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

impl OperatorCommand {
    async fn run(self, config: Option<&Path>, telemetry: &mut Option<Telemetry>) -> anyhow::Result<()> {
        if let Self::Admin(admin::Command::IssueCertificate(arguments)) = &self {
            // Needs no configuration: it is how one begins.
            return admin::issue_certificate::run(arguments);
        }
        if let Self::Admin(admin::Command::CreateLoginKey(arguments)) = &self {
            return admin::create_login_key::run(arguments);
        }
        let environment = Environment::of_process();
        let config = Config::load(config, &environment).context("the configuration cannot be used")?;
        match self {
            Self::Up(arguments) => Box::pin(up::run(arguments, config, &environment, telemetry)).await,
            Self::Api => roles::api::run(&config, telemetry).await,
            Self::Pooler => Box::pin(roles::pooler::run(&config, telemetry)).await,
            Self::Worker => roles::worker::run(&config, telemetry).await,
            Self::Migrate => migrate::run(&config).await,
            Self::Check(arguments) => check::run(&arguments, &config, &environment).await,
            Self::Admin(command) => admin::run(command, &config).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
