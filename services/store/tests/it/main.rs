//! The config database's crate against real PostgreSQL, as its callers see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod api_tokens;
mod backups;
mod directory;
mod elevations;
mod failover;
mod identities;
mod inspections;
mod instance_owners;
mod instances;
mod known_providers;
mod limits;
mod login_attempts;
mod login_throttles;
mod logins;
mod migrate;
mod operations;
mod poolers;
mod pooling;
mod privileges;
mod revocations;
mod role_credentials;
mod servers;
mod settings;
mod signing_keys;
mod succession;
mod support;
mod users;
