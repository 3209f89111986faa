//! The audit trail in a real config database: written, touched, verified, cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod outage;
mod retention;
mod tampering;
mod world;
mod writers;
