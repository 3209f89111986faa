//! `[sealing]`: the key that opens credentials. Only poolers and workers have it; an API process must run
//! without.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

/// Keys of `[sealing]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sealing {
    /// The file that `pgmoor admin create-sealing-key` wrote, with a key a line. Read again when it changes.
    /// Poolers and workers only. No default.
    pub opening_key_file: Option<PathBuf>,
    /// The keys themselves with white space between them, for the environment. No default.
    #[serde(deserialize_with = "values::secret")]
    pub opening_keys: Option<SecretString>,
}

impl Sealing {
    /// True where neither the file nor the keys are set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.opening_key_file.is_none() && self.opening_keys.is_none()
    }

    /// The keys, where they are given and not their file.
    ///
    /// # Errors
    /// When both are set.
    pub fn opening_keys(&self) -> Result<Option<&SecretString>, Problem> {
        if self.opening_keys.is_some() && self.opening_key_file.is_some() {
            return Err(Problem::invalid(
                "sealing.opening_keys",
                "and sealing.opening_key_file are both set: remove one of them",
            ));
        }
        Ok(self.opening_keys.as_ref())
    }

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
