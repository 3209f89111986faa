//! The client as its user runs it, against servers that speak the real wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod exits;
mod fake;
mod login;
mod pgmoor;
mod policies;
mod prompt;
mod renewal;
mod sql;
mod transfers;
