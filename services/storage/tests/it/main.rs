//! Files and artifacts in a real directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod artifacts;
mod directory;
mod pieces;
mod user_files;
mod world;
