//! Files of users and artifacts of operations, on any object store; and an object store in a directory.
//!
//! Invariant: content is seen whole or not at all, and a user's path never leads out of the user's root.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod artifacts;
mod checksum;
mod directory;
mod error;
mod reading;
mod staged_object;
mod user_files;

pub use artifacts::{ArtifactKey, ArtifactWriter, Artifacts, Fingerprint, verified};
pub use checksum::InvalidChecksum;
pub use directory::DirectoryStore;
pub use error::{InvalidContent, Sha256Hex, StorageError};
/// The interface every object store has.
pub use object_store::ObjectStore;
pub use reading::ByteStream;
pub use user_files::{
    FileInfo, FilePage, MAX_PIECE_BYTES, MAX_PIECES, Piece, Upload, UploadOptions, UserFiles,
    UserFilesOptions, WrittenFile, WrittenPiece,
};
