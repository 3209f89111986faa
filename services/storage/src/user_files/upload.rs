//! A file from a stream.

use bytes::Bytes;
use domain::file_path::FilePath;
use domain::id::UserId;

use super::{UserFiles, WrittenFile, key};
use crate::error::{InvalidContent, Sha256Hex, StorageError};
use crate::staged_object::StagedObject;

/// What is known about a file before it comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct UploadOptions {
    /// True to replace a file of that name.
    pub overwrite: bool,
    /// Its length in bytes, checked at the end.
    pub expected_size: Option<u64>,
    /// Its SHA-256, checked at the end.
    pub expected_sha256: Option<Sha256Hex>,
}

/// A file being written. Dropping it abandons it.
#[derive(Debug)]
pub struct Upload {
    files: UserFiles,
    user: UserId,
    path: FilePath,
    options: UploadOptions,
    remaining: u64,
    object: StagedObject,
}

impl Upload {
    pub(super) async fn begin(
        files: UserFiles,
        user: UserId,
        path: FilePath,
        options: UploadOptions,
    ) -> Result<Self, StorageError> {
        let remaining = room(&files, user, &path, options.overwrite).await?;
        if options.expected_size.is_some_and(|size| size > remaining) {
            return Err(files.quota_exceeded());
        }
        let object = StagedObject::create(&files.store, files.random.as_ref()).await?;
        Ok(Self {
            files,
            user,
            path,
            options,
            remaining,
            object,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `QuotaExceeded`, `ArtifactInvalid` once more came than was stated, or where the object store fails.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        let found = self.object.size().saturating_add(bytes.len() as u64);
        if let Some(expected) = self.options.expected_size.filter(|expected| found > *expected) {
            return Err(InvalidContent::Size { expected, found }.into());
        }
        if found > self.remaining {
            return Err(self.files.quota_exceeded());
        }
        self.object.write(bytes).await
    }

    /// Gives the file its name, at once.
    ///
    /// # Errors
    /// `ArtifactInvalid` where size or checksum are not as stated, `AlreadyExists`, `NameTaken`, `QuotaExceeded`.
    pub async fn finish(self) -> Result<WrittenFile, StorageError> {
        let Self {
            files,
            user,
            path,
            options,
            object,
            ..
        } = self;
        let found = object.size();
        if let Some(expected) = options.expected_size.filter(|expected| found != *expected) {
            object.abort().await;
            return Err(InvalidContent::Size { expected, found }.into());
        }
        let object = object.complete().await?;
        let (size, sha256) = (object.size, object.sha256);
        if let Some(expected) = options.expected_sha256.filter(|expected| *expected != sha256) {
            object.discard().await;
            return Err(InvalidContent::Checksum {
                expected,
                found: sha256,
            }
            .into());
        }
        // Others may have written meanwhile.
        match room(&files, user, &path, options.overwrite).await {
            Ok(remaining) if size <= remaining => {}
            refused => {
                object.discard().await;
                return Err(refused.err().unwrap_or_else(|| files.quota_exceeded()));
            }
        }
        object.publish(&key(user, &path), options.overwrite).await?;
        let file = files.get(user, &path).await?;
        Ok(WrittenFile { file, sha256 })
    }

    /// Removes what was written.
    pub async fn abort(self) {
        self.object.abort().await;
    }
}

/// Bytes a file at `path` may have.
async fn room(
    files: &UserFiles,
    user: UserId,
    path: &FilePath,
    overwrite: bool,
) -> Result<u64, StorageError> {
    let existing = files.existing(user, path).await?;
    if existing.is_some() && !overwrite {
        return Err(StorageError::AlreadyExists);
    }
    files.remaining(user, existing.map_or(0, |file| file.size)).await
}
