//! DeleteFile.

use rpc::storage::v1::{DeleteFileRequest, DeleteFileResponse};

use super::{failed, name};
use crate::context::{Call, Context};
use crate::error::Error;

/// Deletes a file of the caller.
pub(super) async fn delete_file(
    api: &Context,
    call: Call<DeleteFileRequest>,
) -> Result<DeleteFileResponse, Error> {
    let name = call.message.name;
    let path = name::path("name", &name, &call.caller)?;
    let deleted = api.files.delete(call.caller.user, &path).await;
    deleted.map_err(|error| failed(error, &name))?;
    Ok(DeleteFileResponse {})
}
