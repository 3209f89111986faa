//! Reading an object from an offset.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use time::OffsetDateTime;

use crate::error::StorageError;

/// Content in order, in pieces of at most a few hundred KiB.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// An object's description and its bytes from `offset` on; the end itself is an offset too.
pub(crate) async fn read_from(
    store: &Arc<dyn ObjectStore>,
    key: &Path,
    offset: u64,
) -> Result<(ObjectMeta, ByteStream), StorageError> {
    let meta = store.head(key).await?;
    if offset > meta.size {
        return Err(StorageError::OffsetOutOfRange { expected: meta.size });
    }
    if offset == meta.size {
        return Ok((meta, stream::empty().boxed()));
    }
    // Only this very object: a file replaced between the two calls must not be read from the middle.
    let options = GetOptions::new()
        .with_range(Some(GetRange::Offset(offset)))
        .with_if_match(meta.e_tag.clone());
    let found = store.get_opts(key, options).await?;
    Ok((meta, found.into_stream().map_err(StorageError::from).boxed()))
}

/// When an object was written.
pub(crate) fn updated(meta: &ObjectMeta) -> OffsetDateTime {
    let nanoseconds = i128::from(meta.last_modified.timestamp()) * 1_000_000_000
        + i128::from(meta.last_modified.timestamp_subsec_nanos());
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
