//! Users' files: each user has a root of their own, and no path leads out of it.
//!
//! The root is keyed by the user's id, never by a name. Invariants: a file is seen whole or not at all; a file that must not be
//! replaced is not, however many write at once; nobody's files take more than their quota (writers that begin at the same
//! moment may together pass it by what they write between their last check and their end).

mod pieces;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::file_path::FilePath;
use domain::id::UserId;
use domain::random::Random;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use time::OffsetDateTime;

pub use self::pieces::{MAX_PIECE_BYTES, MAX_PIECES, Piece, WrittenPiece};
pub use self::upload::{Upload, UploadOptions};
use crate::error::{Sha256Hex, StorageError};
use crate::reading::{self, ByteStream};

const FILES: &str = "files";
const UPLOADS: &str = "uploads";

/// Limits of a user's files.
#[derive(Debug, Clone, Copy)]
pub struct UserFilesOptions {
    /// Most bytes of one user's files, pieces of unfinished ones included.
    pub quota_bytes: u64,
}

impl Default for UserFilesOptions {
    fn default() -> Self {
        Self {
            quota_bytes: 10 * 1024 * 1024 * 1024,
        }
    }
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Where it is in its owner's root.
    pub path: FilePath,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written.
    pub updated: OffsetDateTime,
}

/// A file that has just been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// The file.
    pub file: FileInfo,
    /// Its SHA-256.
    pub sha256: Sha256Hex,
}

/// Some of a user's files, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilePage {
    /// The files.
    pub files: Vec<FileInfo>,
    /// Where there are more: the last path of this page, to be passed as `after`.
    pub next: Option<FilePath>,
}

/// The files of all users in an object store.
#[derive(Debug, Clone)]
pub struct UserFiles {
    store: Arc<dyn ObjectStore>,
    random: Arc<dyn Random>,
    options: UserFilesOptions,
}

impl UserFiles {
    /// The users' files in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, random: Arc<dyn Random>, options: UserFilesOptions) -> Self {
        Self {
            store,
            random,
            options,
        }
    }

    /// A user's files by path: those below `folder`, after the path `after`, at most `limit`.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn list(
        &self,
        user: UserId,
        folder: Option<&FilePath>,
        after: Option<&FilePath>,
        limit: usize,
    ) -> Result<FilePage, StorageError> {
        let root = root(user);
        let prefix = folder.map_or_else(|| root.clone(), |folder| key(user, folder));
        let mut objects = self.store.list(Some(&prefix));
        // An object store lists in whatever order it likes; only the first `limit` and one more are kept.
        let mut first: BTreeMap<FilePath, ObjectMeta> = BTreeMap::new();
        while let Some(meta) = objects.try_next().await? {
            let Some(path) = path_of(&root, &meta) else {
                continue;
            };
            if after.is_some_and(|after| path <= *after) {
                continue;
            }
            first.insert(path, meta);
            if first.len() > limit.saturating_add(1) {
                first.pop_last();
            }
        }
        let more = first.len() > limit;
        let files: Vec<_> = first
            .into_iter()
            .take(limit)
            .map(|(path, meta)| info(path, &meta))
            .collect();
        let next = files.last().filter(|_| more).map(|file| file.path.clone());
        Ok(FilePage { files, next })
    }

    /// One file.
    ///
    /// # Errors
    /// `NotFound`, or where the object store fails.
    pub async fn get(&self, user: UserId, path: &FilePath) -> Result<FileInfo, StorageError> {
        let meta = self.store.head(&key(user, path)).await?;
        Ok(info(path.clone(), &meta))
    }

    /// Begins a file from a stream. It appears with [`Upload::finish`].
    ///
    /// # Errors
    /// `AlreadyExists` where it exists and is not to be replaced, `QuotaExceeded` where the stated size is too large.
    pub async fn begin_upload(
        &self,
        user: UserId,
        path: &FilePath,
        options: UploadOptions,
    ) -> Result<Upload, StorageError> {
        Upload::begin(self.clone(), user, path.clone(), options).await
    }

    /// Writes a piece of a file. The file appears with the last piece. Pieces are kept in the object store, so that each
    /// may come through another instance; sending one again is harmless. One writer at a time per path.
    ///
    /// # Errors
    /// `OffsetOutOfRange` where pieces before it are missing, `PieceTooLarge`, `TooManyPieces`, `QuotaExceeded`,
    /// `AlreadyExists`, `NameTaken`.
    pub async fn write_piece(
        &self,
        user: UserId,
        path: &FilePath,
        piece: Piece,
    ) -> Result<WrittenPiece, StorageError> {
        pieces::write(self, user, path, piece).await
    }

    /// A file and its content from `offset` on.
    ///
    /// # Errors
    /// `NotFound`; `OffsetOutOfRange` beyond the end.
    pub async fn download(
        &self,
        user: UserId,
        path: &FilePath,
        offset: u64,
    ) -> Result<(FileInfo, ByteStream), StorageError> {
        let (meta, content) = reading::read_from(&self.store, &key(user, path), offset).await?;
        Ok((info(path.clone(), &meta), content))
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// `NotFound`, or where the object store fails.
    pub async fn delete(&self, user: UserId, path: &FilePath) -> Result<(), StorageError> {
        Ok(self.store.delete(&key(user, path)).await?)
    }

    /// Bytes of a user's files, pieces of unfinished ones included.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn usage(&self, user: UserId) -> Result<u64, StorageError> {
        let mut bytes = 0;
        for prefix in [root(user), Path::from_iter([UPLOADS, &user.to_string()])] {
            let mut objects = self.store.list(Some(&prefix));
            while let Some(meta) = objects.try_next().await? {
                bytes += meta.size;
            }
        }
        Ok(bytes)
    }

    /// Most bytes a user's files may have.
    #[must_use]
    pub const fn quota_bytes(&self) -> u64 {
        self.options.quota_bytes
    }

    /// Removes unfinished uploads that nobody wrote to since `before`. Returns how many objects went.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn remove_abandoned(&self, before: OffsetDateTime) -> Result<u64, StorageError> {
        let mut removed = 0;
        for prefix in [UPLOADS, crate::staged_object::STAGING] {
            let objects: Vec<_> = self.store.list(Some(&Path::from(prefix))).try_collect().await?;
            for meta in objects {
                if reading::updated(&meta) < before && self.store.delete(&meta.location).await.is_ok() {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Bytes a user may still write, where `replaced` is what goes away when they are written.
    async fn remaining(&self, user: UserId, replaced: u64) -> Result<u64, StorageError> {
        let used = self.usage(user).await?.saturating_sub(replaced);
        Ok(self.options.quota_bytes.saturating_sub(used))
    }

    async fn existing(&self, user: UserId, path: &FilePath) -> Result<Option<FileInfo>, StorageError> {
        match self.get(user, path).await {
            Ok(file) => Ok(Some(file)),
            Err(StorageError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    const fn quota_exceeded(&self) -> StorageError {
        StorageError::QuotaExceeded {
            quota_bytes: self.options.quota_bytes,
        }
    }
}

fn root(user: UserId) -> Path {
    Path::from_iter([FILES, &user.to_string()])
}

/// The key of a file. The parts stand as they are: a [`FilePath`] holds nothing an object store gives a meaning to.
fn key(user: UserId, path: &FilePath) -> Path {
    // A FilePath is always a valid key; the encoding form below only differs for what a FilePath cannot hold.
    Path::parse(format!("{FILES}/{user}/{path}"))
        .unwrap_or_else(|_| Path::from_iter([FILES, &user.to_string()].into_iter().chain(path.parts())))
}

fn path_of(root: &Path, meta: &ObjectMeta) -> Option<FilePath> {
    let below = meta.location.as_ref().strip_prefix(root.as_ref())?;
    below.strip_prefix('/')?.parse().ok()
}

fn info(path: FilePath, meta: &ObjectMeta) -> FileInfo {
    FileInfo {
        path,
        size: meta.size,
        updated: reading::updated(meta),
    }
}
