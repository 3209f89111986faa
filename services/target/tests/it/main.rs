//! Questions and programs against a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connecting;
mod running;
mod selecting;
mod world;
