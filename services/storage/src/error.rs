//! What can go wrong with files and artifacts.

use thiserror::Error;

/// Why a file or an artifact was not read or written.
#[derive(Debug, Error)]
pub enum StorageError {
    /// There is none of that name.
    #[error("there is no such file")]
    NotFound,
    /// There is one of that name, and it was not to be replaced.
    #[error("a file of that name exists")]
    AlreadyExists,
    /// A folder has that name, or a file has the name of a folder on the way to it.
    #[error("a folder and a file cannot have the same name")]
    NameTaken,
    /// The owner's files would take more than their owner may have.
    #[error("the files would exceed the quota of {quota_bytes} bytes")]
    QuotaExceeded {
        /// The most bytes the owner may have.
        quota_bytes: u64,
    },
    /// The offset is not one to go on from.
    #[error("the offset must be {expected}")]
    OffsetOutOfRange {
        /// Where to go on (writing), or the end (reading).
        expected: u64,
    },
    /// A piece of a file is too large to be taken at once.
    #[error("a piece must be at most {limit} bytes long")]
    PieceTooLarge {
        /// The most bytes of a piece.
        limit: usize,
    },
    /// A file came in more pieces than are kept.
    #[error("a file must come in at most {limit} pieces")]
    TooManyPieces {
        /// The most pieces.
        limit: usize,
    },
    /// What is stored, or was sent, is not what it should be.
    #[error("the content is invalid: {0}")]
    ArtifactInvalid(#[from] InvalidContent),
    /// The object store failed.
    #[error("the object store failed")]
    Backend(#[source] object_store::Error),
}

/// How content differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidContent {
    /// It is longer or shorter.
    #[error("it has {found} bytes instead of {expected}")]
    Size {
        /// How long it should be.
        expected: u64,
        /// How long it is, or how much there was when it became too long.
        found: u64,
    },
    /// It is another content of the same length.
    #[error("its SHA-256 is {found} instead of {expected}")]
    Checksum {
        /// What it should be.
        expected: Sha256Hex,
        /// What it is.
        found: Sha256Hex,
    },
}

pub use crate::checksum::Sha256Hex;

impl From<object_store::Error> for StorageError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            object_store::Error::AlreadyExists { .. } => Self::AlreadyExists,
            object_store::Error::Precondition { .. } => Self::NameTaken,
            error => Self::Backend(error),
        }
    }
}
