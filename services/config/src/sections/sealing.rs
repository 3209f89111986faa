//! `[sealing]`: the key that opens credentials. Only poolers and workers have it; an API process must run
//! without.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::problem::Problem;

/// Keys of `[sealing]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sealing {
    /// The file that `pgmoor admin create-sealing-key` wrote. Poolers and workers only. No default.
    pub opening_key_file: Option<PathBuf>,
}

impl Sealing {
    /// The file.
    ///
    /// # Errors
    /// When it is not set.
    pub fn require_opening_key_file(&self) -> Result<&Path, Problem> {
        self.opening_key_file.as_deref().ok_or_else(|| {
            Problem::missing(
                "sealing.opening_key_file",
                "make it with `pgmoor admin create-sealing-key`",
            )
        })
    }
}
