//! PostgreSQL's client programs: which are installed, how they are told what to do, and how they are run.
//!
//! Invariants: options are typed values mapped one by one to arguments of the form `--option=value`; no shell; the child sees
//! an environment made here and nothing of ours; its password is in a file that only it can read.

mod contents;
mod discovery;
mod dump;
mod environment;
mod process;
mod progress;
mod restore;
mod version;

pub use contents::Contents;
pub use discovery::{Tool, Toolbox, ToolboxOptions};
pub use dump::DumpOptions;
pub use environment::{ToolEnvironment, ToolEnvironmentError, ToolLogin};
pub use process::{OsUser, ToolProcess};
pub use progress::{Step, step};
pub use restore::{RestoreOptions, list_arguments, read_through_arguments};
pub use version::ToolVersion;
