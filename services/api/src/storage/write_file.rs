//! WriteFile.

use rpc::storage::v1::{WriteFileRequest, WriteFileResponse};
use storage::Piece;

use super::{failed, name};
use crate::context::{Call, Context};
use crate::error::Error;

/// Writes a piece of a file of the caller.
pub(super) async fn write_file(
    api: &Context,
    call: Call<WriteFileRequest>,
) -> Result<WriteFileResponse, Error> {
    let request = call.message;
    let path = name::path("name", &request.name, &call.caller)?;
    let offset =
        u64::try_from(request.offset).map_err(|_| Error::invalid("offset", "must not be negative"))?;
    let piece = Piece {
        offset,
        data: request.data,
        last: request.last,
        overwrite: request.overwrite,
    };
    let owner = call.caller.user;
    let written = api.files.write_piece(owner, &path, piece).await;
    let written = written.map_err(|error| failed(error, &request.name))?;
    Ok(WriteFileResponse {
        next_offset: name::size(written.next_offset),
        file: written.written.map(|written| name::message(owner, &written.file)),
    })
}
