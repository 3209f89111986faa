//! The public API as its callers see it: two instances in one process on one real config database, called
//! over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod access;
mod audit;
mod backups;
mod elevations;
mod fake_sessions;
mod files;
mod inspection;
mod login;
mod operations;
mod pools;
mod query;
mod servers;
mod service_accounts;
mod settings;
mod shares;
mod sharing;
mod surface;
mod upheld;
mod users;
mod watch;
mod work;
mod world;
