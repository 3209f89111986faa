//! The object store of users' files and artifacts: a directory shared by API instances and workers.

use std::sync::Arc;

use anyhow::Context;
use config::Storage;
use domain::random::Random;
use storage::{Artifacts, DirectoryStore, ObjectStore, UserFiles, UserFilesOptions};

use crate::private_file;

/// The two uses of the one store.
#[derive(Debug)]
pub(crate) struct Objects {
    /// Users' files.
    pub(crate) files: UserFiles,
    /// What operations made.
    pub(crate) artifacts: Artifacts,
}

/// Opens the directory, which is made where there is none.
///
/// # Errors
/// When it is not set, or cannot be made or opened.
pub(crate) fn open(section: &Storage, random: &Arc<dyn Random>) -> anyhow::Result<Objects> {
    let path = section.require_directory()?;
    private_file::create_directory(path)?;
    let store = DirectoryStore::open(path, random.clone());
    let store = store.with_context(|| format!("storage.directory = {} cannot be used", path.display()))?;
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    let options = UserFilesOptions {
        quota_bytes: section.quota_bytes,
    };
    Ok(Objects {
        files: UserFiles::new(store.clone(), random.clone(), options),
        artifacts: Artifacts::new(store, random.clone()),
    })
}
