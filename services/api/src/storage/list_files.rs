//! ListFiles.

use domain::file_path::FilePath;
use domain::page::{InvalidPageToken, PageScope, page_size};
use rpc::storage::v1::{ListFilesRequest, ListFilesResponse};

use super::{failed, name};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::resource;

/// Lists the caller's files by path.
pub(super) async fn list_files(
    api: &Context,
    call: Call<ListFilesRequest>,
) -> Result<ListFilesResponse, Error> {
    let request = call.message;
    let owner = resource::user("parent", &request.parent, &call.caller)?;
    if owner != call.caller.user {
        return Err(Error::not_found(ResourceKind::User, request.parent));
    }
    let folder: Option<FilePath> = match request.folder.as_str() {
        "" => None,
        folder => Some(folder.parse().map_err(|error| Error::invalid("folder", error))?),
    };
    let size = page_size(request.page_size).map_err(|error| Error::invalid("page_size", error))?;
    let scope = PageScope::new("ListFiles")
        .with(&owner.to_string())
        .with(&request.folder);
    let after = scope.cursor(&request.page_token)?;
    let after: Option<FilePath> = after
        .map(|path| path.parse())
        .transpose()
        .map_err(|_| InvalidPageToken)?;
    let limit = usize::try_from(size).unwrap_or(usize::MAX);
    let page = api
        .files
        .list(owner, folder.as_ref(), after.as_ref(), limit)
        .await;
    let page = page.map_err(|error| failed(error, &request.parent))?;
    Ok(ListFilesResponse {
        files: page.files.iter().map(|file| name::message(owner, file)).collect(),
        next_page_token: page
            .next
            .map(|path| scope.token(path.as_str()))
            .unwrap_or_default(),
    })
}
