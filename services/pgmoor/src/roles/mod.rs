//! The roles a process can have, each put together from the crates in one file that reads as a table of
//! contents.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod directory;
pub(crate) mod key_ring;
pub(crate) mod listener;
pub(crate) mod login_keys;
pub(crate) mod metrics;
pub(crate) mod pooler;
pub(crate) mod providers;
pub(crate) mod storage;
mod trust;
pub(crate) mod worker;

use std::time::Duration;

use anyhow::Context;
use config::{Config, Egress, LogFormat, Problem};
use domain::egress::{EgressPolicy, Rule};
use store::Store;

/// How a role reports on itself.
pub(crate) fn telemetry_options(config: &Config, service_name: &str) -> telemetry::Options {
    let section = &config.telemetry;
    telemetry::Options {
        service_name: service_name.to_owned(),
        format: match section.log_format {
            LogFormat::Text => telemetry::Format::Text,
            LogFormat::Json => telemetry::Format::Json,
        },
        level: section.log_level.clone(),
        otlp_endpoint: section.otlp_endpoint.clone(),
    }
}

/// Starts logs and traces.
///
/// # Errors
/// When the options cannot be used.
pub(crate) fn start_telemetry(config: &Config, service_name: &str) -> anyhow::Result<telemetry::Telemetry> {
    let started = telemetry::start(&telemetry_options(config, service_name));
    started.map_err(|error| match error {
        telemetry::StartError::Level(_) => Problem::invalid("telemetry.log_level", error.to_string()).into(),
        other => anyhow::Error::new(other).context("telemetry cannot start"),
    })
}

/// How soon a revocation made elsewhere is known here.
const REVOCATION_INTERVAL: Duration = Duration::from_secs(1);

/// Where instances may be: what the rules allow, but not where the config database is.
///
/// # Errors
/// Names the rule that is none; and when the config database's hosts cannot be resolved.
pub(crate) async fn egress_policy(section: &Egress, store: &Store) -> anyhow::Result<EgressPolicy> {
    Ok(EgressPolicy {
        rules: egress_rules(section)?,
        loopback_ports: section.loopback_ports.iter().copied().collect(),
        config_database: store
            .addresses()
            .await
            .context("the config database's hosts cannot be resolved")?,
    })
}

/// The rules of where instances may be.
///
/// # Errors
/// Names the rule that is none.
pub(crate) fn egress_rules(section: &Egress) -> Result<Vec<Rule>, Problem> {
    let parse = |rule: &String| {
        rule.parse::<Rule>()
            .map_err(|error| Problem::invalid("egress.allow", error.to_string()))
    };
    section.allow.iter().map(parse).collect()
}
