//! A file in pieces, for clients without client streaming; each call may come to another instance.
//!
//! Pieces are objects `uploads/{user}/{hash of the path}/{offset}`. Invariants: the pieces kept are those sent since offset 0
//! was, without a gap from 0 on; the file is put together under a staging key and appears at once. Before it appears a
//! receipt is left beside the pieces, by which the last piece is recognised when it is sent again after a lost reply.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::file_path::FilePath;
use domain::id::UserId;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::{UPLOADS, UserFiles, WrittenFile, key};
use crate::checksum::Measure;
use crate::error::{Sha256Hex, StorageError};
use crate::staged_object::{CompleteObject, StagedObject};

/// Most bytes of a piece.
pub const MAX_PIECE_BYTES: usize = 3 * 1024 * 1024;
/// Most pieces of a file.
pub const MAX_PIECES: usize = 10_000;

const RECEIPT: &str = "receipt";

/// A piece of a file.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where it begins, in bytes. 0 begins anew.
    pub offset: u64,
    /// Its bytes, at most [`MAX_PIECE_BYTES`].
    pub data: Bytes,
    /// True for the last one.
    pub last: bool,
    /// True to replace a file of that name.
    pub overwrite: bool,
}

/// A piece is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPiece {
    /// Where to go on.
    pub next_offset: u64,
    /// The file, after the last piece.
    pub written: Option<WrittenFile>,
}

pub(super) async fn write(
    files: &UserFiles,
    user: UserId,
    path: &FilePath,
    piece: Piece,
) -> Result<WrittenPiece, StorageError> {
    if piece.data.len() > MAX_PIECE_BYTES {
        return Err(StorageError::PieceTooLarge {
            limit: MAX_PIECE_BYTES,
        });
    }
    let pieces = Pieces { files, user, path };
    let next_offset = piece.offset.saturating_add(piece.data.len() as u64);
    if piece.last
        && let Some(written) = pieces.written_before(&piece).await?
    {
        return Ok(WrittenPiece {
            next_offset,
            written: Some(written),
        });
    }
    let existing = files.existing(user, path).await?;
    if existing.is_some() && !piece.overwrite {
        return Err(StorageError::AlreadyExists);
    }
    let replaced = existing.map_or(0, |file| file.size);
    pieces.keep(&piece, replaced).await?;
    let written = if piece.last {
        Some(pieces.assemble(&piece, next_offset).await?)
    } else {
        None
    };
    Ok(WrittenPiece { next_offset, written })
}

struct Pieces<'a> {
    files: &'a UserFiles,
    user: UserId,
    path: &'a FilePath,
}

impl Pieces<'_> {
    /// Checks that the piece may stand at its offset, and keeps it in place of what was there and after.
    async fn keep(&self, piece: &Piece, replaced: u64) -> Result<(), StorageError> {
        let kept = self.kept().await?;
        check_offset(&kept, piece.offset)?;
        if kept.range(..piece.offset).count() >= MAX_PIECES {
            return Err(StorageError::TooManyPieces { limit: MAX_PIECES });
        }
        if piece.offset > 0 && self.holds_already(&kept, piece).await? {
            return Ok(());
        }
        let superseded: u64 = kept.range(piece.offset..).map(|(_, size)| size).sum();
        let remaining = self.files.remaining(self.user, replaced + superseded).await?;
        if piece.data.len() as u64 > remaining {
            return Err(self.files.quota_exceeded());
        }
        if piece.offset == 0 {
            self.remove(&self.key(RECEIPT)).await?;
        }
        // From the end, so that no gap is left where this breaks off.
        for offset in kept.range(piece.offset..).map(|(offset, _)| *offset).rev() {
            self.remove(&self.piece_key(offset)).await?;
        }
        if !piece.data.is_empty() {
            let key = self.piece_key(piece.offset);
            self.files.store.put(&key, piece.data.clone().into()).await?;
        }
        Ok(())
    }

    /// Makes the file of the pieces before `size`.
    async fn assemble(&self, last: &Piece, size: u64) -> Result<WrittenFile, StorageError> {
        let kept = self.kept().await?;
        let object = self.join(&kept, size).await?;
        let sha256 = object.sha256;
        let receipt = Receipt {
            offset: last.offset,
            piece: Sha256Hex::of(&last.data),
            sha256,
        };
        let receipt = Bytes::from(receipt.to_text());
        self.files.store.put(&self.key(RECEIPT), receipt.into()).await?;
        object.publish(&key(self.user, self.path), last.overwrite).await?;
        self.forget(&kept).await?;
        let file = self.files.get(self.user, self.path).await?;
        Ok(WrittenFile { file, sha256 })
    }

    async fn join(&self, kept: &BTreeMap<u64, u64>, size: u64) -> Result<CompleteObject, StorageError> {
        let mut object = StagedObject::create(&self.files.store, self.files.random.as_ref()).await?;
        for offset in kept.range(..size).map(|(offset, _)| *offset) {
            if offset != object.size() {
                break;
            }
            let bytes = self
                .files
                .store
                .get(&self.piece_key(offset))
                .await?
                .bytes()
                .await?;
            object.write(bytes).await?;
        }
        if object.size() != size {
            // Somebody else writes to the same path.
            let expected = object.size();
            object.abort().await;
            return Err(StorageError::OffsetOutOfRange { expected });
        }
        object.complete().await
    }

    /// The file, where this very last piece has made it already.
    async fn written_before(&self, piece: &Piece) -> Result<Option<WrittenFile>, StorageError> {
        let receipt = match self.files.store.get(&self.key(RECEIPT)).await {
            Ok(found) => Receipt::from_text(&found.bytes().await?),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let matching =
            |receipt: &Receipt| receipt.offset == piece.offset && receipt.piece == Sha256Hex::of(&piece.data);
        let Some(receipt) = receipt.filter(matching) else {
            return Ok(None);
        };
        // The receipt is older than the file: only the content says whether the file appeared.
        let (file, mut content) = match self.files.download(self.user, self.path, 0).await {
            Ok(found) => found,
            Err(StorageError::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut measure = Measure::default();
        while let Some(bytes) = content.try_next().await? {
            measure.add(&bytes);
        }
        if measure.sha256() != receipt.sha256 {
            return Ok(None);
        }
        self.forget(&self.kept().await?).await?;
        Ok(Some(WrittenFile {
            file,
            sha256: receipt.sha256,
        }))
    }

    async fn holds_already(&self, kept: &BTreeMap<u64, u64>, piece: &Piece) -> Result<bool, StorageError> {
        if kept.get(&piece.offset) != Some(&(piece.data.len() as u64)) {
            return Ok(false);
        }
        let bytes = self
            .files
            .store
            .get(&self.piece_key(piece.offset))
            .await?
            .bytes()
            .await?;
        Ok(bytes == piece.data)
    }

    /// The sizes of the pieces kept, by offset.
    async fn kept(&self) -> Result<BTreeMap<u64, u64>, StorageError> {
        let objects: Vec<_> = self.files.store.list(Some(&self.folder())).try_collect().await?;
        Ok(objects
            .iter()
            .filter_map(|meta| Some((meta.location.filename()?.parse().ok()?, meta.size)))
            .collect())
    }

    async fn forget(&self, kept: &BTreeMap<u64, u64>) -> Result<(), StorageError> {
        for offset in kept.keys() {
            self.remove(&self.piece_key(*offset)).await?;
        }
        Ok(())
    }

    async fn remove(&self, key: &Path) -> Result<(), StorageError> {
        match self.files.store.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn folder(&self) -> Path {
        // Hashed: a path may be longer than a name, and must not clash with a receipt.
        let path = Sha256Hex::of(self.path.as_str().as_bytes()).to_string();
        Path::from_iter([UPLOADS, &self.user.to_string(), &path])
    }

    fn key(&self, name: &str) -> Path {
        self.folder().join(name)
    }

    fn piece_key(&self, offset: u64) -> Path {
        self.key(&format!("{offset:020}"))
    }
}

/// A piece may begin where the pieces before it end, or take the place of one that is there.
fn check_offset(kept: &BTreeMap<u64, u64>, offset: u64) -> Result<(), StorageError> {
    let mut end = 0;
    while end < offset {
        match kept.get(&end) {
            Some(size) if *size > 0 && end + size <= offset => end += size,
            _ => return Err(StorageError::OffsetOutOfRange { expected: end }),
        }
    }
    Ok(())
}

/// What the last piece was and what it made.
struct Receipt {
    offset: u64,
    piece: Sha256Hex,
    sha256: Sha256Hex,
}

impl Receipt {
    fn to_text(&self) -> String {
        format!("{} {} {}", self.offset, self.piece, self.sha256)
    }

    fn from_text(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        Some(Self {
            offset: words.next()?.parse().ok()?,
            piece: words.next()?.parse().ok()?,
            sha256: words.next()?.parse().ok()?,
        })
    }
}
