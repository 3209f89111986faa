//! Artifacts: what operations make and users get back whole, such as a backup's dump.
//!
//! Invariant: an artifact appears at once when its writer finishes and never changes afterwards; whoever reads it says which
//! size and SHA-256 it must have.

use std::sync::Arc;

use bytes::Bytes;
use domain::id::{BackupId, OperationId};
use domain::random::Random;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use time::OffsetDateTime;

use crate::checksum::Measure;
use crate::error::{InvalidContent, Sha256Hex, StorageError};
use crate::reading::{self, ByteStream};
use crate::staged_object::StagedObject;

const ARTIFACTS: &str = "artifacts";

/// Names an artifact: the backup it belongs to, and the attempt that made it. Two workers that both believe to carry out an
/// operation never write to the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ArtifactKey(String);

impl ArtifactKey {
    /// The artifact an attempt of an operation makes for a backup.
    #[must_use]
    pub fn new(backup: BackupId, operation: OperationId, attempt: u32) -> Self {
        Self(format!("{backup}/{operation}-{attempt}"))
    }

    /// The key as the config database keeps it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The backup it belongs to.
    #[must_use]
    pub fn backup(&self) -> Option<BackupId> {
        self.0.split_once('/')?.0.parse().ok()
    }

    /// A key as the config database kept it; none where it is not one.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        let (backup, attempt) = text.split_once('/')?;
        let (operation, number) = attempt.split_at_checked(36)?;
        backup.parse::<BackupId>().ok()?;
        operation.parse::<OperationId>().ok()?;
        number.strip_prefix('-')?.parse::<u32>().ok()?;
        Some(Self(text.to_owned()))
    }

    fn path(&self) -> Path {
        Path::from_iter(std::iter::once(ARTIFACTS).chain(self.0.split('/')))
    }
}

/// What an artifact is: stored beside its key, and checked when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha256Hex,
}

/// The artifacts in an object store.
#[derive(Debug, Clone)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    random: Arc<dyn Random>,
}

impl Artifacts {
    /// The artifacts of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, random: Arc<dyn Random>) -> Self {
        Self { store, random }
    }

    /// Begins an artifact that nobody sees before [`ArtifactWriter::finish`].
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn begin(&self, key: &ArtifactKey) -> Result<ArtifactWriter, StorageError> {
        Ok(ArtifactWriter {
            key: key.path(),
            object: StagedObject::create(&self.store, self.random.as_ref()).await?,
        })
    }

    /// The artifact from `offset` on. Its size is checked now; with offset 0 the checksum too: the stream then ends with
    /// [`StorageError::ArtifactInvalid`] where the bytes it gave were not the artifact's.
    ///
    /// # Errors
    /// `NotFound`; `ArtifactInvalid` where the size differs; `OffsetOutOfRange` beyond the end.
    pub async fn read(
        &self,
        key: &ArtifactKey,
        expected: Fingerprint,
        offset: u64,
    ) -> Result<ByteStream, StorageError> {
        let (meta, content) = reading::read_from(&self.store, &key.path(), offset).await?;
        if meta.size != expected.size {
            return Err(InvalidContent::Size {
                expected: expected.size,
                found: meta.size,
            }
            .into());
        }
        Ok(if offset == 0 {
            verified(content, expected)
        } else {
            content
        })
    }

    /// Deletes an artifact; one that is gone already is fine.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn delete(&self, key: &ArtifactKey) -> Result<(), StorageError> {
        match self.store.delete(&key.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The artifacts last written before `before`: with the config database's list of backups, those that belong to none
    /// can be found and deleted.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn list_before(&self, before: OffsetDateTime) -> Result<Vec<ArtifactKey>, StorageError> {
        let prefix = Path::from(ARTIFACTS);
        let objects: Vec<_> = self.store.list(Some(&prefix)).try_collect().await?;
        Ok(objects
            .iter()
            .filter(|meta| reading::updated(meta) < before)
            .filter_map(|meta| ArtifactKey::from_stored(meta.location.as_ref().split_once('/')?.1))
            .collect())
    }
}

/// An artifact being written. Dropping it abandons it.
#[derive(Debug)]
pub struct ArtifactWriter {
    key: Path,
    object: StagedObject,
}

impl ArtifactWriter {
    /// Bytes written so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.object.size()
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Where the object store fails.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.object.write(bytes).await
    }

    /// Publishes the artifact, whole.
    ///
    /// # Errors
    /// `AlreadyExists`, or where the object store fails.
    pub async fn finish(self) -> Result<Fingerprint, StorageError> {
        let object = self.object.complete().await?;
        let fingerprint = Fingerprint {
            size: object.size,
            sha256: object.sha256,
        };
        object.publish(&self.key, false).await?;
        Ok(fingerprint)
    }

    /// Removes what was written.
    pub async fn abort(self) {
        self.object.abort().await;
    }
}

/// Passes content on and fails at its end, or as soon as it grows too long, where it is not as `expected`.
pub fn verified(content: ByteStream, expected: Fingerprint) -> ByteStream {
    let state = Some((content, Measure::default()));
    stream::try_unfold(state, move |state| async move {
        let Some((mut content, mut measure)) = state else {
            return Ok(None);
        };
        let Some(bytes) = content.next().await.transpose()? else {
            check(measure, expected)?;
            return Ok(None);
        };
        measure.add(&bytes);
        if measure.size() > expected.size {
            check(measure, expected)?;
            return Ok(None);
        }
        Ok(Some((bytes, Some((content, measure)))))
    })
    .boxed()
}

/// Compares what passed by with what it should have been.
pub(crate) fn check(measure: Measure, expected: Fingerprint) -> Result<(), InvalidContent> {
    let found = measure.size();
    if found != expected.size {
        return Err(InvalidContent::Size {
            expected: expected.size,
            found,
        });
    }
    let found = measure.sha256();
    if found != expected.sha256 {
        return Err(InvalidContent::Checksum {
            expected: expected.sha256,
            found,
        });
    }
    Ok(())
}
