//! Names of files: `users/{user}/files/{path}`.

use domain::access::Caller;
use domain::file_path::FilePath;
use domain::id::UserId;
use rpc::storage::v1::File;
use storage::FileInfo;

use crate::duration::timestamp;
use crate::error::{Error, ResourceKind};
use crate::resource;

/// Where a file of the caller is in the caller's root. Another user's answers as a missing one.
pub(crate) fn path(field: &str, name: &str, caller: &Caller) -> Result<FilePath, Error> {
    let form = "must be of the form users/me/files/{path} or users/{user}/files/{path}";
    let (owner, path) = name
        .split_once("/files/")
        .ok_or_else(|| Error::invalid(field, form))?;
    let owner = resource::user(field, owner, caller).map_err(|_| Error::invalid(field, form))?;
    let path = path
        .parse()
        .map_err(|error| Error::invalid(field, format_args!("has a path that {error}")))?;
    if owner != caller.user {
        return Err(Error::not_found(ResourceKind::File, name));
    }
    Ok(path)
}

/// A file.
pub(super) fn message(owner: UserId, file: &FileInfo) -> File {
    File {
        name: format!("users/{owner}/files/{}", file.path),
        size_bytes: size(file.size),
        update_time: Some(timestamp(file.updated)),
    }
}

/// A size or an offset as the wire has it.
pub(super) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
