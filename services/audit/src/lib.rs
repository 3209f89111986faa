//! The audit trail of a process: a bounded buffer, the task that writes it to the config database, and the chain that
//! shows whether what was written is still there.
//!
//! Invariants: a place for the record of a call is kept before the call does anything, so that a call that must be
//! recorded either is or does not happen, unless the operator chose to count instead; records are written in the order
//! they came, each with the hash of the one before; nothing here waits for the database but the writer's own task.
//!
//! Deliberately absent: what a call is. The `api` and `pooler` crates say what their records hold.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod buffer;
pub mod chain;
pub mod denials;
pub mod json;
mod log;
mod receipt;
pub mod retention;
pub mod statement;
mod writer;

pub use log::{AuditLog, Figures, LogOptions, Place, Unavailable};
pub use receipt::{Receipt, Writing};
pub use store::audit::{Anchor, Entry, Filter, Kept, Kind, Record, WriterRole};
pub use writer::{HEARTBEAT, Writer};
