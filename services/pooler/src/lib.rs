//! The pooler: owns every connection to targets, the sessions on them and the budget of each instance.
//!
//! Invariants: a connection exists only while it holds a slot of its instance's [`ledger`]; a session is used by its
//! owner only, who is whoever the call's own token says; what the server says reaches the reader in its order, once,
//! and no faster than the reader takes it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod audited;
mod backend;
mod connect;
pub mod error;
mod events;
mod facts;
mod forerunner;
pub mod grpc;
mod history;
mod hold;
mod idle;
mod inspection;
mod instances;
pub mod ledger;
mod look;
mod metrics;
mod ownership;
mod peer;
mod pooler;
mod pools;
mod reach;
mod recorder;
mod registry;
mod request;
mod results;
mod rights;
mod roster;
mod session;
pub mod slots;
mod spool;
mod status;
mod tally;
mod timestamp;
mod visitors;

pub use crate::error::PoolerError;
pub use crate::peer::{PeerPolicy, PeerRole};
pub use crate::pooler::{Pooler, PoolerOptions, StartError};
