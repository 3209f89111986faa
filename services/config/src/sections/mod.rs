//! One module per section of the configuration file.
//!
//! A section has a doc comment per key with its unit and default, checks its values in `validate`, and has a
//! `require_…` function per key that some role cannot do without.

pub mod api;
pub mod audit;
pub mod config_database;
pub mod egress;
pub mod metrics;
pub mod oidc;
pub mod pooler;
pub mod sealing;
pub mod storage;
pub mod telemetry;
pub mod trust;
pub mod worker;
