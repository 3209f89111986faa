//! `[storage]`: users' files and what operations make.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

const GIB: u64 = 1024 * 1024 * 1024;

/// Keys of `[storage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The directory of the object store, the same for every API instance and worker (a shared file system,
    /// when they run on several machines). Made where there is none. No default.
    pub directory: Option<PathBuf>,
    /// The most a user's files may take, in bytes. At least 1. Default 10 GiB.
    #[serde(deserialize_with = "values::number")]
    pub quota_bytes: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            directory: None,
            quota_bytes: 10 * GIB,
        }
    }
}

impl Storage {
    /// The directory.
    ///
    /// # Errors
    /// When it is not set.
    pub fn require_directory(&self) -> Result<&Path, Problem> {
        self.directory.as_deref().ok_or_else(|| {
            Problem::missing(
                "storage.directory",
                "name the directory that API instances and workers share",
            )
        })
    }

    pub(crate) fn validate(&self) -> Vec<Problem> {
        let problem = || Problem::invalid("storage.quota_bytes", "must be at least 1");
        (self.quota_bytes == 0).then(problem).into_iter().collect()
    }
}
