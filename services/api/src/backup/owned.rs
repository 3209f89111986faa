//! A backup of the caller.

use domain::access::Caller;
use domain::id::BackupId;
use store::backups::Backup;

use crate::context::Context;
use crate::error::{Error, ResourceKind};

/// Reads a backup of the caller. Another user's answers as a missing one.
pub(crate) async fn owned(api: &Context, caller: &Caller, id: BackupId) -> Result<Backup, Error> {
    let found = api.store.backups().get(id).await?;
    found
        .filter(|backup| backup.owner_id == caller.user)
        .ok_or_else(|| missing(id))
}

/// What a backup that is not there answers.
pub(super) fn missing(id: BackupId) -> Error {
    Error::not_found(ResourceKind::Backup, format_args!("backups/{id}"))
}
