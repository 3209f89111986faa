//! What a test needs around the code it tests: real PostgreSQL clusters, programs, nginx, certificates,
//! deadlines.
//!
//! Invariant: whatever is started here ends with the test process, however that ends, by SIGKILL too (see
//! [`process`]). An arrangement that fails panics, with the log of what failed: a test that cannot be
//! arranged has failed, and its reader wants the reason, not an error to unwrap.
//!
//! Deliberately absent: anything that knows pgmoor's own APIs. Those helpers live beside the tests that use
//! them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be arranged fails at once, with a text that says why"
)]

pub mod binary;
pub mod cluster;
pub mod database;
pub mod eventually;
pub mod nginx;
pub mod pgbouncer;
pub mod port;
pub mod process;
pub mod programs;
pub mod random;
pub mod relay;
pub mod tls;
pub mod unprivileged;

pub use binary::pgmoor_binary;
pub use cluster::{Cluster, ClusterOptions};
pub use database::{Connection, Database, Endpoint, Login};
pub use eventually::eventually;
pub use nginx::{Nginx, NginxOptions};
pub use pgbouncer::PgBouncer;
pub use port::free_port;
pub use process::{Process, Signal};
pub use relay::Relay;
