//! The program as its operator meets it, and the shape of the workspace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod api;
mod check;
mod command;
mod command_line;
mod dependencies;
mod migrate;
mod pooler;
mod trust;
mod up;
mod verify_audit;
mod world;
