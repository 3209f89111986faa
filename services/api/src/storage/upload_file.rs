//! UploadFile: the first message says what is uploaded, the others are its data.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rpc::storage::v1::upload_file_request::Kind;
use rpc::storage::v1::{UploadFileRequest, UploadFileResponse, UploadStart};
use storage::{Upload, UploadOptions, WrittenFile};
use tokio::time::timeout;
use tonic::Streaming;

use super::{failed, name};
use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::upheld::{self, Entry};

/// How long a client may be silent. A dead connection is noticed sooner, by keepalive.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// Writes a file of the caller from a stream. It appears whole or not at all.
pub(super) async fn upload_file(
    api: &Arc<Context>,
    call: Call<Streaming<UploadFileRequest>>,
) -> Result<UploadFileResponse, Error> {
    let owner = call.caller.user;
    let mut messages = Messages {
        access: upheld::refusal(api, &call, Entry::Permission).boxed(),
        stream: call.message,
    };
    let Some(Kind::Start(start)) = messages.next().await? else {
        return Err(Error::invalid("start", "must be the first message"));
    };
    let path = name::path("start.name", &start.name, &call.caller)?;
    let upload = api.files.begin_upload(owner, &path, options(&start)?).await;
    let upload = upload.map_err(|error| failed(error, &start.name))?;
    let written = receive(upload, &mut messages, &start.name).await?;
    Ok(UploadFileResponse {
        file: Some(name::message(owner, &written.file)),
        sha256: written.sha256.to_string(),
    })
}

fn options(start: &UploadStart) -> Result<UploadOptions, Error> {
    let mut violations = Violations::default();
    let expected_size = start.size_bytes.and_then(|size| {
        let size = u64::try_from(size).map_err(|_| "must not be negative");
        violations.check("start.size_bytes", size)
    });
    let sha256 = Some(&start.sha256).filter(|sha256| !sha256.is_empty());
    let expected_sha256 = sha256.and_then(|sha256| violations.check("start.sha256", sha256.parse()));
    violations.done()?;
    Ok(UploadOptions {
        overwrite: start.overwrite,
        expected_size,
        expected_sha256,
    })
}

/// Takes the data to its end and gives the file its name; whatever goes wrong leaves nothing.
async fn receive(mut upload: Upload, messages: &mut Messages, name: &str) -> Result<WrittenFile, Error> {
    match copy(&mut upload, messages, name).await {
        Ok(()) => upload.finish().await.map_err(|error| failed(error, name)),
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

async fn copy(upload: &mut Upload, messages: &mut Messages, name: &str) -> Result<(), Error> {
    while let Some(kind) = messages.next().await? {
        let Kind::Data(data) = kind else {
            return Err(Error::invalid("start", "must be the first message only"));
        };
        let written = upload.write(data).await;
        written.map_err(|error| failed(error, name))?;
    }
    Ok(())
}

/// What the client sends, as long as it may.
struct Messages {
    stream: Streaming<UploadFileRequest>,
    /// Ends when the caller may not go on.
    access: BoxFuture<'static, Error>,
}

impl Messages {
    /// The next message; none after the last.
    async fn next(&mut self) -> Result<Option<Kind>, Error> {
        let message = tokio::select! {
            refusal = &mut self.access => return Err(refusal),
            message = timeout(MAX_SILENCE, self.stream.message()) => message,
        };
        let message = message.map_err(|_| Error::Stalled { limit: MAX_SILENCE })??;
        match message.map(|message| message.kind) {
            None => Ok(None),
            Some(Some(kind)) => Ok(Some(kind)),
            Some(None) => Err(Error::invalid("data", "must be given")),
        }
    }
}
