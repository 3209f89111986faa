//! pgmoor end to end: several processes of the real binary, as users and operators meet them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod administration;
mod audit;
mod authorization;
mod canary;
mod churn;
mod commits;
mod credentials;
mod discovery;
mod egress;
mod elevation;
mod files;
mod hot_path;
mod keys;
mod large_values;
mod login;
mod main_job;
mod operations;
mod outage;
mod paging;
mod parity;
mod read_only;
mod receiver;
mod restore;
mod resuming;
mod revocation;
mod secrets;
mod servers;
mod sessions;
mod settings;
mod sharing;
mod single_sign_on;
mod sql;
mod takeover;
mod traces;
mod trust;
mod worlds;

/// True where time does not matter.
#[allow(clippy::disallowed_methods, reason = "a test has no configuration of its own")]
fn long_tests() -> bool {
    std::env::var_os("PGMOOR_LONG_TESTS").is_some()
}
