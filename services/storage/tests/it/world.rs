//! A directory with a store in it, and two users.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use domain::file_path::FilePath;
use domain::id::UserId;
use domain::random::{Random, SystemRandom};
use futures::TryStreamExt;
use storage::{
    Artifacts, ByteStream, DirectoryStore, StorageError, UploadOptions, UserFiles, UserFilesOptions,
};
use tempfile::TempDir;

pub(crate) struct World {
    directory: TempDir,
    pub(crate) store: Arc<DirectoryStore>,
    pub(crate) user: UserId,
    pub(crate) other: UserId,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        let store = DirectoryStore::open(&directory.path().join("root"), random()).unwrap();
        Self {
            directory,
            store: Arc::new(store),
            user: UserId::generate(&SystemRandom),
            other: UserId::generate(&SystemRandom),
        }
    }

    /// The directory around the store's own.
    pub(crate) fn outside(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn user_root(&self) -> PathBuf {
        self.root().join("files").join(self.user.to_string())
    }

    pub(crate) fn files(&self) -> UserFiles {
        self.files_with(UserFilesOptions::default().quota_bytes)
    }

    pub(crate) fn files_with(&self, quota_bytes: u64) -> UserFiles {
        UserFiles::new(self.store.clone(), random(), UserFilesOptions { quota_bytes })
    }

    pub(crate) fn artifacts(&self) -> Artifacts {
        Artifacts::new(self.store.clone(), random())
    }

    pub(crate) async fn write(&self, name: &str, content: &str) -> Result<(), StorageError> {
        let mut upload = self
            .files()
            .begin_upload(self.user, &path(name), replace())
            .await?;
        upload.write(Bytes::from(content.to_owned())).await?;
        upload.finish().await.map(drop)
    }

    pub(crate) async fn read(&self, name: &str) -> Result<String, StorageError> {
        let (_, content) = self.files().download(self.user, &path(name), 0).await?;
        collect(content)
            .await
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// Files of the store that are nobody's content: staged or uploaded in part.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in [".staging", "staging", "uploads"] {
            collect_files(&self.root().join(folder), &mut found);
        }
        found
    }
}

pub(crate) fn random() -> Arc<dyn Random> {
    Arc::new(SystemRandom)
}

pub(crate) fn path(text: &str) -> FilePath {
    text.parse().unwrap()
}

pub(crate) fn replace() -> UploadOptions {
    UploadOptions {
        overwrite: true,
        ..UploadOptions::default()
    }
}

pub(crate) async fn collect(content: ByteStream) -> Result<Vec<u8>, StorageError> {
    content
        .try_fold(Vec::new(), |mut all, bytes| async move {
            all.extend_from_slice(&bytes);
            Ok(all)
        })
        .await
}

fn collect_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_files(&path, found);
        } else {
            found.push(path);
        }
    }
}
