//! What a failure of the object store means to who asked.

use storage::StorageError;

use crate::error::{Error, ResourceKind};

/// The cause of a failed call about the file `name`.
pub(crate) fn failed(error: StorageError, name: &str) -> Error {
    match error {
        StorageError::NotFound => Error::not_found(ResourceKind::File, name),
        StorageError::AlreadyExists | StorageError::NameTaken => Error::Exists {
            kind: ResourceKind::File,
            name: name.to_owned(),
        },
        StorageError::QuotaExceeded { quota_bytes } => Error::QuotaExceeded { quota_bytes },
        StorageError::OffsetOutOfRange { expected } => Error::OffsetOutOfRange { offset: expected },
        error @ (StorageError::PieceTooLarge { .. } | StorageError::TooManyPieces { .. }) => {
            Error::invalid("data", error)
        }
        error @ StorageError::ArtifactInvalid(_) => Error::ArtifactInvalid {
            problem: error.to_string(),
        },
        error @ StorageError::Backend(_) => Error::Fault {
            context: "the object store failed",
            source: error.into(),
        },
    }
}
