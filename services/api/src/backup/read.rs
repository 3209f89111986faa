//! GetBackup, ListBackups.

use domain::page::PageScope;
use rpc::backup::v1::{GetBackupRequest, GetBackupResponse, ListBackupsRequest, ListBackupsResponse};

use super::convert;
use super::owned::owned;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{paging, resource};

/// Reads a backup.
pub(super) async fn get_backup(
    api: &Context,
    call: Call<GetBackupRequest>,
) -> Result<GetBackupResponse, Error> {
    let id = resource::backup("name", &call.message.name)?;
    let backup = owned(api, &call.caller, id).await?;
    Ok(GetBackupResponse {
        backup: Some(convert::backup(&backup)),
    })
}

/// Lists the caller's backups, newest first.
pub(super) async fn list_backups(
    api: &Context,
    call: Call<ListBackupsRequest>,
) -> Result<ListBackupsResponse, Error> {
    let scope = PageScope::new("ListBackups").with(&call.caller.user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.store.backups().list(call.caller.user, &page).await?;
    Ok(ListBackupsResponse {
        backups: page.items.iter().map(convert::backup).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
