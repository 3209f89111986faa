//! pgmoor as it is deployed, in one test process: a config database, a target, the roles as processes of the
//! real binary, nginx in front; and the main job that the end-to-end test and the demo both run on it.
//!
//! Invariant: everything a [`World`] starts ends with it and with this process, and every secret it hands out
//! is remembered, so that [`leaks`] can look for it where no secret may be.
//!
//! As in the harness, what cannot be arranged panics with the logs of what failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a world that cannot be arranged fails at once, with a text that says why"
)]

pub mod admin;
pub mod backends;
pub mod chromium;
pub mod client;
pub mod config_database;
pub mod configuration;
pub mod execution;
pub mod http;
pub mod leaks;
pub mod main_job;
pub mod memory;
pub mod operations;
pub mod provider;
pub mod reason;
pub mod recording;
pub mod role;
pub mod secrets;
pub mod target;
pub mod world;

pub use client::Client;
pub use execution::{Collected, Running};
pub use role::{Role, RoleProcess};
pub use target::Target;
pub use world::{World, WorldOptions};
