//! An object that grows under a key nobody reads, until it is whole and gets its own key.
//!
//! Works on any object store: parts of a multipart upload, then a rename that may refuse to replace. What a killed writer
//! leaves behind lies under `staging/` and is removed by age.

use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use domain::random::{self, Random};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, RenameOptions, RenameTargetMode};

use crate::checksum::Measure;
use crate::error::{Sha256Hex, StorageError};

/// Where unfinished objects are.
pub(crate) const STAGING: &str = "staging";
/// Bytes of a part, which is what a writer keeps in memory. Object stores want at least 5 MiB and take 10,000 parts.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// An unfinished object. Dropping it abandons it.
#[derive(Debug)]
pub(crate) struct StagedObject {
    store: Arc<dyn ObjectStore>,
    key: Path,
    upload: Box<dyn MultipartUpload>,
    buffer: BytesMut,
    measure: Measure,
}

impl StagedObject {
    pub(crate) async fn create(
        store: &Arc<dyn ObjectStore>,
        random: &dyn Random,
    ) -> Result<Self, StorageError> {
        let name = HEXLOWER.encode(&random::bytes::<16>(random));
        let key = Path::from_iter([STAGING, &name]);
        let upload = store.put_multipart(&key).await?;
        Ok(Self {
            store: Arc::clone(store),
            key,
            upload,
            buffer: BytesMut::new(),
            measure: Measure::default(),
        })
    }

    pub(crate) const fn size(&self) -> u64 {
        self.measure.size()
    }

    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), StorageError> {
        self.measure.add(&bytes);
        while !bytes.is_empty() {
            let taken = bytes.split_to(bytes.len().min(PART_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(&taken);
            if self.buffer.len() == PART_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Completes the object under its staging key; it is seen by no reader yet.
    pub(crate) async fn complete(mut self) -> Result<CompleteObject, StorageError> {
        // An object store may refuse an upload without a part.
        if !self.buffer.is_empty() || self.size() == 0 {
            self.flush().await?;
        }
        self.upload.complete().await?;
        Ok(CompleteObject {
            size: self.measure.size(),
            sha256: self.measure.sha256(),
            store: self.store,
            key: self.key,
        })
    }

    pub(crate) async fn abort(mut self) {
        // Removed by age where this fails.
        let _ = self.upload.abort().await;
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        let part = mem::take(&mut self.buffer).freeze();
        Ok(self.upload.put_part(part.into()).await?)
    }
}

/// A whole object without a key of its own.
#[derive(Debug)]
pub(crate) struct CompleteObject {
    store: Arc<dyn ObjectStore>,
    key: Path,
    pub(crate) size: u64,
    pub(crate) sha256: Sha256Hex,
}

impl CompleteObject {
    /// Gives the object its key, at once. Without `replace` one writer of many wins and the others get `AlreadyExists`.
    pub(crate) async fn publish(self, key: &Path, replace: bool) -> Result<(), StorageError> {
        let mode = if replace {
            RenameTargetMode::Overwrite
        } else {
            RenameTargetMode::Create
        };
        let options = RenameOptions::new().with_target_mode(mode);
        let renamed = self.store.rename_opts(&self.key, key, options).await;
        if let Err(error) = renamed {
            self.discard().await;
            return Err(error.into());
        }
        Ok(())
    }

    pub(crate) async fn discard(self) {
        // Removed by age where this fails.
        let _ = self.store.delete(&self.key).await;
    }
}
