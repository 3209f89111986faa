//! What pgmoor itself does to a target: its own typed questions, and PostgreSQL's client programs run against it.
//!
//! Invariant: nothing a user chose becomes SQL text, a shell word, an option or a connection string. Names go as bound
//! parameters, as quoted patterns or as one quoted value; a password leaves only into a connection or a private passfile, and
//! only towards an address that egress rules allowed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod connect;
pub mod questions;
pub mod resolve;
pub mod tools;

pub use connect::{ConnectError, Login, Target, TargetOptions};
pub use questions::{QuestionError, Questions, ServerFacts};
pub use resolve::{ResolveError, Resolved, ResolvedEndpoint, resolve};
