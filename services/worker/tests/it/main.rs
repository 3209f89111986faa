//! A worker with a real config database, a real target and PostgreSQL's own programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backing_up;
mod cancelling;
mod credentials;
mod failing;
mod losing;
mod restoring;
mod revoking;
mod slots;
mod world;
