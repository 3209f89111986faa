//! A directory that does not outlive this process.

use std::path::{Path, PathBuf};

use harness::Process;

/// A directory that is gone when this process is, however it ends: the watcher of a program that does nothing
/// removes it.
#[derive(Debug)]
pub(super) struct Keeper {
    _program: Process,
    directory: PathBuf,
}

impl Keeper {
    /// Makes the directory.
    pub(super) fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pgmoor-e2e-")
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let program = Process::builder("sleep")
            .arg("infinity")
            .directory(&directory)
            .spawn();
        Self {
            _program: program,
            directory,
        }
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
