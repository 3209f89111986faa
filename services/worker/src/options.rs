//! How a worker works.

use std::path::PathBuf;
use std::time::Duration;

use domain::egress::EgressPolicy;
use target::tools::{OsUser, ToolboxOptions};

/// How a worker works. The configuration fills it in.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Operations at once, at least 1.
    pub concurrency: usize,
    /// How often it is looked for operations while there are none.
    pub poll_interval: Duration,
    /// How long an operation stays this worker's without a sign of life.
    pub lease: Duration,
    /// How often progress and log are written down and the lease is renewed; a small part of `lease`.
    pub keep_interval: Duration,
    /// How long running operations may go on when the worker is told to end.
    pub drain_timeout: Duration,
    /// Most bytes of an operation's log.
    pub log_bytes: usize,
    /// A directory for scratch files and private files of programs. Made where it is missing.
    pub scratch_directory: PathBuf,
    /// Most bytes of an archive that is restored.
    pub scratch_bytes: u64,
    /// For a connection to a target.
    pub connect_timeout: Duration,
    /// Where the worker may connect to.
    pub egress: EgressPolicy,
    /// Where programs are looked for.
    pub toolbox: ToolboxOptions,
    /// The OS user programs run as; none for the worker's own. Needs root.
    pub tool_user: Option<OsUser>,
    /// How old unfinished uploads and artifacts that belong to no backup must be to be removed.
    pub abandoned_after: Duration,
    /// How long operations that have ended are kept, with their logs.
    pub keep_operations: Duration,
    /// How often it is looked for what is abandoned or too old.
    pub cleaning_interval: Duration,
}

impl WorkerOptions {
    /// Sensible values, with nothing allowed by `egress`.
    #[must_use]
    pub fn new(scratch_directory: PathBuf) -> Self {
        Self {
            concurrency: 2,
            poll_interval: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            keep_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(60),
            log_bytes: 4 * 1024 * 1024,
            scratch_directory,
            scratch_bytes: 100 * 1024 * 1024 * 1024,
            connect_timeout: Duration::from_secs(15),
            egress: EgressPolicy::default(),
            toolbox: ToolboxOptions {
                known_places: true,
                ..ToolboxOptions::default()
            },
            tool_user: None,
            abandoned_after: Duration::from_secs(24 * 60 * 60),
            keep_operations: Duration::from_secs(30 * 24 * 60 * 60),
            cleaning_interval: Duration::from_secs(10 * 60),
        }
    }
}
