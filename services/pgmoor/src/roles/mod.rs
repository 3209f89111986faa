//! The roles a process can have, each put together from the crates in one file that reads as a table of
//! contents.

pub(crate) mod api;
pub(crate) mod directory;
pub(crate) mod listener;
pub(crate) mod metrics;
pub(crate) mod pooler;
pub(crate) mod storage;
mod trust;
pub(crate) mod worker;

use std::time::Duration;

use anyhow::{Context, ensure};
use config::{Config, Egress, LogFormat, Problem, Sealing};
use domain::egress::{EgressPolicy, Rule};
use sealing::OpeningKey;
use secrecy::SecretString;
use store::Store;
use zeroize::Zeroizing;

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

/// Reads the keys that open credentials: the current one and those before it, a line each.
///
/// # Errors
/// When no file is set, or it cannot be read or holds something else.
pub(crate) fn opening_keys(section: &Sealing) -> anyhow::Result<Vec<OpeningKey>> {
    let path = section.require_opening_key_file()?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the opening key's file {} cannot be read", path.display()))?;
    let text = Zeroizing::new(text);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let keys: Result<Vec<_>, _> = lines
        .map(|line| OpeningKey::from_text(&SecretString::from(line)))
        .collect();
    let keys = keys.with_context(|| format!("{} cannot be used", path.display()))?;
    ensure!(!keys.is_empty(), "{} holds no opening key", path.display());
    Ok(keys)
}
