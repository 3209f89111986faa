//! Logging in and being recognised, against real PostgreSQL, as API instances and poolers see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_tokens;
mod keys;
mod layer;
mod logins;
mod outage;
mod password_throttle;
mod refreshing;
mod revocation;
mod support;
mod tokens;
mod upkeep;
