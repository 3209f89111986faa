//! Options that every command of the client takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// One JSON document with the API's own field names; query results as one object for each row and line.
    Json,
    /// Comma-separated values. Query results follow the settings csv.*
    Csv,
}

/// Options of all commands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Client options")]
pub struct Globals {
    /// The profile: which server to talk to, as whom [default: "default"]
    #[arg(long, global = true, env = "PGMOOR_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// The server's address, http:// or https://; wins over the profile's
    #[arg(long, global = true, env = "PGMOOR_URL", value_name = "URL")]
    pub server_url: Option<String>,
    /// Trust the certificate authorities in this PEM file instead of the operating system's
    #[arg(long, global = true, env = "PGMOOR_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Use the API token in this file instead of a login (or set PGMOOR_TOKEN)
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How results are written
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// How long a call may take, for example 30s; statements and transfers are not calls in this sense
    #[arg(long, global = true, value_parser = humantime::parse_duration, default_value = "30s", value_name = "TIME")]
    pub timeout: Option<Duration>,
}

impl Globals {
    /// How long a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }
}
