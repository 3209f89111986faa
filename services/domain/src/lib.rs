//! The nouns and rules of pgmoor, free of IO: ids, names, settings, access decisions, state machines, the SQL tokenizer.
//!
//! Invariant: nothing here opens a socket, a file or a database, reads a clock or draws a random number by itself,
//! or depends on an async runtime. Time comes from a [`clock::Clock`], randomness from a [`random::Random`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access;
pub mod backup;
pub mod clock;
pub mod credential;
pub mod csv;
pub mod egress;
pub mod endpoint;
pub mod file_path;
pub mod id;
pub mod limits;
pub mod name;
pub mod operation;
pub mod page;
pub mod pin;
pub mod random;
pub mod session;
pub mod settings;
pub mod source_address;
pub mod sql;
pub mod username;
