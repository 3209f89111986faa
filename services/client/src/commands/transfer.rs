//! Moves files: up as a stream or in pieces that can be repeated, down from where the last attempt ended.
//!
//! Invariant: neither side ever shows half a file under its own name.

use std::fs::{File as LocalFile, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::StreamExt as _;
use rpc::errors::v1::ErrorReason;
use rpc::storage::v1::upload_file_request::Kind;
use rpc::storage::v1::{DownloadFileRequest, File, UploadFileRequest, UploadStart, WriteFileRequest};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::chunks;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::progress::Progress;

const STDIO: &str = "-";
/// Bytes of a piece that is sent by itself: below the API's limit of 3 MiB.
const PIECE_BYTES: usize = 2 * 1024 * 1024;
/// A transfer in which nothing moves for so long has failed.
const SILENCE: Duration = Duration::from_secs(120);
/// How often a download begins again where it broke off.
const RESUMES: u32 = 5;
/// A document that is sent in one message may have so many bytes.
const MAX_DOCUMENT_BYTES: u64 = 3 * 1024 * 1024;

/// What is known about a file before it arrives.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) sha256: Option<String>,
    pub(crate) size: Option<i64>,
}

/// All of a small file, or of the standard input.
pub(crate) fn read_whole(context: &mut Context, file: &Path) -> Result<Vec<u8>, ClientError> {
    let mut document = Vec::new();
    if file == Path::new(STDIO) {
        let stdin = context.take_stdin()?;
        stdin
            .take(MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut document)
            .map_err(ClientError::Input)?;
    } else {
        let opened = LocalFile::open(file).map_err(ClientError::reading(file))?;
        opened
            .take(MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut document)
            .map_err(ClientError::reading(file))?;
    }
    if document.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(ClientError::usage(format!(
            "{} has more than {MAX_DOCUMENT_BYTES} bytes",
            file.display()
        )));
    }
    Ok(document)
}

/// Uploads a file. A stream that is cut is replaced by pieces, which are repeated one by one.
pub(crate) async fn upload(
    context: &mut Context,
    file: &Path,
    name: String,
    overwrite: bool,
    pieces: bool,
) -> Result<File, ClientError> {
    if file == Path::new(STDIO) {
        if pieces {
            return Err(ClientError::usage(
                "--pieces needs a file: the standard input cannot be read twice",
            ));
        }
        let start = UploadStart {
            name,
            overwrite,
            ..UploadStart::default()
        };
        let stdin = context.take_stdin()?;
        return stream_up(context, stdin, start).await;
    }
    let mut opened = LocalFile::open(file).map_err(ClientError::reading(file))?;
    let size = opened.metadata().map_err(ClientError::reading(file))?.len();
    if !pieces {
        let sha256 = digest(&mut opened).map_err(ClientError::reading(file))?;
        let size_bytes = Some(i64::try_from(size).unwrap_or(i64::MAX));
        let start = UploadStart {
            name: name.clone(),
            overwrite,
            size_bytes,
            sha256,
        };
        let again = opened.try_clone().map_err(ClientError::reading(file))?;
        match stream_up(context, again, start).await {
            Err(ClientError::Status(status)) if status.code() == Code::Unavailable => {
                context.notes.line("the upload was cut off; going on in pieces");
            }
            outcome => return outcome,
        }
    }
    pieces_up(context, opened, file, name, overwrite, size).await
}

fn digest(file: &mut LocalFile) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    file.rewind()?;
    Ok(HEXLOWER.encode(&hash.finalize()))
}

async fn stream_up(
    context: &mut Context,
    reader: impl Read + Send + 'static,
    start: UploadStart,
) -> Result<File, ClientError> {
    let connection = context.connection()?;
    let mut client = connection.files();
    let total = start.size_bytes.and_then(|size| u64::try_from(size).ok());
    let progress = Progress::bytes(context.stderr_is_terminal, "uploading", total);
    let (pieces, failure) = chunks::pieces(reader);
    // Counted where they leave, so that the bar shows what the server took.
    let (moved, mut moves) = tokio::sync::watch::channel(0_u64);
    let first = UploadFileRequest {
        kind: Some(Kind::Start(start)),
    };
    let rest = pieces.map(move |data| {
        moved.send_modify(|count| *count += data.len() as u64);
        UploadFileRequest {
            kind: Some(Kind::Data(data)),
        }
    });
    let requests = tokio_stream::once(first).chain(rest);
    let call = client.upload_file(requests);
    let mut call = std::pin::pin!(call);
    let mut failure = std::pin::pin!(failure);
    let (mut seen, mut finished) = (0, false);
    loop {
        tokio::select! {
            answer = &mut call => {
                let answer = answer?.into_inner();
                return answer.file.ok_or(ClientError::Incomplete { field: "file" });
            }
            // The call is dropped, which cancels it: the server keeps nothing of the file.
            error = &mut failure => return Err(ClientError::Input(error)),
            change = timeout(SILENCE, moves.changed()), if !finished => match change {
                Ok(Ok(())) => {
                    let count = *moves.borrow_and_update();
                    progress.advance(count - seen);
                    seen = count;
                }
                Ok(Err(_)) => finished = true,
                Err(_) => return Err(silent().into()),
            },
            () = tokio::time::sleep(SILENCE), if finished => return Err(silent().into()),
        }
    }
}

fn silent() -> tonic::Status {
    tonic::Status::deadline_exceeded("nothing moved for too long")
}

async fn pieces_up(
    context: &mut Context,
    opened: LocalFile,
    path: &Path,
    name: String,
    overwrite: bool,
    size: u64,
) -> Result<File, ClientError> {
    let connection = context.connection()?;
    let client = connection.files();
    let call = Call::repeatable(context.globals.timeout().max(SILENCE));
    let progress = Progress::bytes(context.stderr_is_terminal, "uploading", Some(size));
    let mut offset = 0_u64;
    let mut corrections = 0;
    loop {
        let data = piece_at(&opened, offset).map_err(ClientError::reading(path))?;
        let last = offset + data.len() as u64 >= size || data.len() < PIECE_BYTES;
        let request = WriteFileRequest {
            name: name.clone(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            data,
            last,
            overwrite,
        };
        match connection
            .call(call, async || client.clone().write_file(request.clone()).await)
            .await
        {
            Ok(answer) if last => return answer.file.ok_or(ClientError::Incomplete { field: "file" }),
            Ok(answer) => offset = u64::try_from(answer.next_offset).unwrap_or_default(),
            // An instance that lost pieces says where to go on.
            Err(status)
                if rpc::error::reason(&status) == Some(ErrorReason::OffsetOutOfRange) && corrections < 3 =>
            {
                corrections += 1;
                let metadata = status
                    .get_details_error_info()
                    .map(|info| info.metadata)
                    .unwrap_or_default();
                let told = metadata.values().find_map(|value| value.parse().ok());
                offset = told.unwrap_or_default();
            }
            Err(status) => return Err(status.into()),
        }
        progress.set("uploading".to_owned(), offset, Some(size));
    }
}

/// A piece of a file; less than a whole one only at its end. The file's own position is left alone: whoever read it for a
/// stream that was cut off may still be reading there.
fn piece_at(file: &LocalFile, offset: u64) -> std::io::Result<Bytes> {
    let mut data = vec![0; PIECE_BYTES];
    let mut length = 0;
    while length < data.len() {
        match file.read_at(&mut data[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(length);
    Ok(data.into())
}

/// Downloads a file, or a backup's artifact, and goes on where an earlier download ended.
pub(crate) async fn download(
    context: &mut Context,
    name: &str,
    file: &Path,
    overwrite: bool,
    expected: &Expected,
) -> Result<(), ClientError> {
    if file == Path::new(STDIO) {
        let mut offset = 0;
        return fetch(context, name, &mut offset, expected, None).await;
    }
    if file.exists() && !overwrite {
        return Err(ClientError::usage(format!(
            "{} exists; use --overwrite to replace it",
            file.display()
        )));
    }
    let part = PathBuf::from(format!("{}.part", file.display()));
    let mut opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(ClientError::writing(&part))?;
    let present = opened
        .seek(SeekFrom::End(0))
        .map_err(ClientError::writing(&part))?;
    if present > 0 {
        context.notes.line(&format!(
            "going on after the {present} bytes in {}",
            part.display()
        ));
    }
    let mut offset = i64::try_from(present).unwrap_or(i64::MAX);
    fetch(context, name, &mut offset, expected, Some((&mut opened, &part))).await?;
    if let Some(sha256) = expected.sha256.as_deref().filter(|sha256| !sha256.is_empty()) {
        opened.rewind().map_err(ClientError::reading(&part))?;
        let found = digest(&mut opened).map_err(ClientError::reading(&part))?;
        if found != sha256 {
            std::fs::remove_file(&part).map_err(ClientError::writing(&part))?;
            let detail = format!("its SHA-256 is {found}, it should be {sha256}");
            return Err(ClientError::Damaged {
                what: name.to_owned(),
                detail,
            });
        }
    }
    opened.sync_all().map_err(ClientError::writing(&part))?;
    std::fs::rename(&part, file).map_err(ClientError::writing(file))?;
    context
        .notes
        .line(&format!("wrote {offset} bytes to {}", file.display()));
    Ok(())
}

/// Fetches from `offset` to the end, beginning again where the stream breaks off.
async fn fetch(
    context: &mut Context,
    name: &str,
    offset: &mut i64,
    expected: &Expected,
    mut file: Option<(&mut LocalFile, &Path)>,
) -> Result<(), ClientError> {
    let connection = context.connection()?;
    let client = connection.files();
    let progress = Progress::bytes(context.stderr_is_terminal, "downloading", None);
    let mut total = expected.size;
    let mut breaks = 0;
    loop {
        let request = DownloadFileRequest {
            name: name.to_owned(),
            offset: *offset,
        };
        let call = Call::repeatable(context.globals.timeout());
        let mut stream = connection
            .call(call, async || client.clone().download_file(request.clone()).await)
            .await?;
        let broken = loop {
            let piece = match timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break None,
                Ok(Err(status)) => break Some(status),
                Err(_) => break Some(silent()),
            };
            if piece.size_bytes > 0 {
                total = Some(piece.size_bytes);
            }
            match &mut file {
                Some((file, path)) => file.write_all(&piece.data).map_err(ClientError::writing(*path))?,
                None => {
                    context.out.block.extend_from_slice(&piece.data);
                    context.out.pass().await?;
                }
            }
            *offset += i64::try_from(piece.data.len()).unwrap_or_default();
            let known = total.and_then(|total| u64::try_from(total).ok());
            progress.set(
                "downloading".to_owned(),
                u64::try_from(*offset).unwrap_or_default(),
                known,
            );
        };
        match broken {
            None if total.is_none_or(|total| total == *offset) => return Ok(()),
            None => {
                let detail = format!("{offset} bytes, {} expected", total.unwrap_or_default());
                return Err(ClientError::Damaged {
                    what: name.to_owned(),
                    detail,
                });
            }
            Some(status) if status.code() == Code::Unavailable && breaks < RESUMES => breaks += 1,
            Some(status) => return Err(status.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_is_that_of_its_offset_whoever_else_reads_the_file() {
        let content: Vec<u8> = (0..=255).cycle().take(3_000).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        // It shares the file's position, as what feeds a stream does.
        let mut other = file.try_clone().unwrap();
        other.seek(SeekFrom::Start(10)).unwrap();
        assert_eq!(piece_at(&file, 1_000).unwrap(), content[1_000..]);
        let mut next = [0; 5];
        other.read_exact(&mut next).unwrap();
        assert_eq!(next, content[10..15]);
    }
}
