//! DownloadFile.
//!
//! Nothing is read ahead: the next piece is taken from the object store when the client has room for it.

use std::sync::Arc;

use bytes::Bytes;
use domain::access::Caller;
use domain::id::BackupId;
use futures::{Stream, StreamExt as _, stream};
use rpc::storage::v1::{DownloadFileRequest, DownloadFileResponse};
use storage::{ArtifactKey, ByteStream, Fingerprint, Sha256Hex, StorageError};
use tonic::Status;

use super::{failed, name};
use crate::access;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::resource;
use crate::upheld::{Entry, Upheld};

/// Most bytes of a piece.
const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// Streams a file or a backup's artifact of the caller from an offset. The first message has its size.
pub(super) async fn download_file(
    api: &Arc<Context>,
    call: Call<DownloadFileRequest>,
) -> Result<Upheld<DownloadFileResponse>, Error> {
    let name = call.message.name.clone();
    let offset =
        u64::try_from(call.message.offset).map_err(|_| Error::invalid("offset", "must not be negative"))?;
    let (entry, size, content) = if name.starts_with("backups/") {
        let id = resource::backup("name", &name)?;
        let (size, content) = artifact(api, &call.caller, (id, &name), offset).await?;
        (Entry::BackupContents(id), size, content)
    } else {
        let path = name::path("name", &name, &call.caller)?;
        let found = api.files.download(call.caller.user, &path, offset).await;
        let (file, content) = found.map_err(|error| failed(error, &name))?;
        (Entry::Permission, file.size, content)
    };
    let first = DownloadFileResponse {
        data: Bytes::new(),
        size_bytes: name::size(size),
    };
    let download = Download {
        api: api.clone(),
        name,
        content,
        rest: Bytes::new(),
    };
    let messages = stream::iter([Ok(first)]).chain(pieces(download));
    Ok(Upheld::new(api, &call, entry, messages))
}

/// A backup's artifact.
async fn artifact(
    api: &Context,
    caller: &Caller,
    (id, name): (BackupId, &str),
    offset: u64,
) -> Result<(u64, ByteStream), Error> {
    let artifact = access::backup_contents(api, caller, id).await?.artifact;
    let invalid = || Error::ArtifactInvalid {
        problem: "the backup's artifact is missing".to_owned(),
    };
    let key = ArtifactKey::from_stored(&artifact.storage_key).ok_or_else(invalid)?;
    let expected = Fingerprint {
        size: artifact.size_bytes,
        sha256: Sha256Hex::from_bytes(artifact.sha256),
    };
    let content = api.artifacts.read(&key, expected, offset).await;
    let content = content.map_err(|error| match error {
        StorageError::NotFound => invalid(),
        error => failed(error, name),
    })?;
    Ok((artifact.size_bytes, content))
}

struct Download {
    api: Arc<Context>,
    name: String,
    content: ByteStream,
    /// What was read and is too much for one piece.
    rest: Bytes,
}

fn pieces(download: Download) -> impl Stream<Item = Result<DownloadFileResponse, Status>> {
    stream::unfold(Some(download), |download| async {
        let mut download = download?;
        match download.next().await {
            Ok(Some(data)) => {
                let piece = DownloadFileResponse { data, size_bytes: 0 };
                Some((Ok(piece), Some(download)))
            }
            Ok(None) => None,
            Err(error) => {
                let status = download.api.status(error);
                Some((Err(status), None))
            }
        }
    })
}

impl Download {
    /// The next piece; none after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.rest.is_empty() {
            match self.content.next().await {
                None => return Ok(None),
                Some(bytes) => self.rest = bytes.map_err(|error| failed(error, &self.name))?,
            }
        }
        let length = self.rest.len().min(MAX_PIECE_BYTES);
        Ok(Some(self.rest.split_to(length)))
    }
}
