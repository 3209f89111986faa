//! pgmoor end to end: several processes of the real binary, as users and operators meet them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod administration;
mod discovery;
mod egress;
mod files;
mod hot_path;
mod large_values;
mod login;
mod main_job;
mod operations;
mod outage;
mod receiver;
mod restore;
mod revocation;
mod secrets;
mod servers;
mod sessions;
mod settings;
mod sharing;
mod sql;
mod takeover;
mod traces;
mod trust;
mod worlds;
