//! `[worker]`: the process that runs operations.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

const GIB: u64 = 1024 * 1024 * 1024;
const MAX_DRAIN_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Keys of `[worker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// Operations at once. 1 to 64. Default 2.
    #[serde(deserialize_with = "values::number")]
    pub concurrency: u64,
    /// How long running operations may take to finish once the process was asked to stop. At most 1 h. Default 60 s.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// A directory of this worker's own for archives that are being restored. Default `/var/tmp/pgmoor-worker`.
    pub scratch_directory: PathBuf,
    /// The largest archive that is restored, in bytes. At least 1. Default 100 GiB.
    #[serde(deserialize_with = "values::number")]
    pub scratch_bytes: u64,
    /// Directories with `pg_dump` and `pg_restore`, looked at before the usual places. Default: none.
    pub tool_directories: Vec<PathBuf>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            concurrency: 2,
            drain_timeout: Duration::from_secs(60),
            scratch_directory: PathBuf::from("/var/tmp/pgmoor-worker"),
            scratch_bytes: 100 * GIB,
            tool_directories: Vec::new(),
        }
    }
}

impl Worker {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1..=64).contains(&self.concurrency) {
            problems.push(Problem::invalid("worker.concurrency", "must be 1 to 64"));
        }
        if self.drain_timeout > MAX_DRAIN_TIMEOUT {
            problems.push(Problem::invalid("worker.drain_timeout", "must be at most 1 h"));
        }
        if self.scratch_bytes == 0 {
            problems.push(Problem::invalid("worker.scratch_bytes", "must be at least 1"));
        }
        problems
    }
}
