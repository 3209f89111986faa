//! What an operator decides about a pgmoor process: a TOML file, overridden by the environment, checked
//! before anything starts.
//!
//! Invariant: a [`Config`] that exists has only values its process can act on, and every problem of one that
//! cannot exist names the key, where its value came from and what to do. Each section is a module of
//! [`sections`]; what a particular role cannot do without is asked for by the `require_…` functions of the
//! sections.
//!
//! Deliberately absent: any knowledge of the other crates. `pgmoor` turns sections into their options.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod environment;
pub mod layers;
pub mod problem;
pub mod sections;
mod values;

use serde::Deserialize;

pub use environment::Environment;
pub use problem::{InvalidConfig, Problem};
pub use sections::api::Api;
pub use sections::audit::{Audit, StatementText, WhenFull};
pub use sections::config_database::ConfigDatabase;
pub use sections::egress::Egress;
pub use sections::metrics::Metrics;
pub use sections::oidc::Oidc;
pub use sections::pooler::Pooler;
pub use sections::sealing::Sealing;
pub use sections::storage::Storage;
pub use sections::telemetry::{LogFormat, Telemetry};
pub use sections::trust::{Identity, Role, Trust};
pub use sections::worker::Worker;

/// The whole configuration. One file can serve every role: each reads its own sections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The PostgreSQL database that holds pgmoor's own state.
    pub config_database: ConfigDatabase,
    /// The public API.
    pub api: Api,
    /// The audit trail.
    pub audit: Audit,
    /// OpenID providers.
    pub oidc: Oidc,
    /// The pooler.
    pub pooler: Pooler,
    /// The certificates with which roles prove to each other who they are.
    pub trust: Trust,
    /// The key that opens credentials.
    pub sealing: Sealing,
    /// Where instances may be.
    pub egress: Egress,
    /// Users' files and what operations make.
    pub storage: Storage,
    /// The worker.
    pub worker: Worker,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// Logs and traces.
    pub telemetry: Telemetry,
}
