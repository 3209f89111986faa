//! GetBackup, ListBackups.

use domain::access::Permission;
use domain::page::PageScope;
use rpc::backup::v1::{GetBackupRequest, GetBackupResponse, ListBackupsRequest, ListBackupsResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, paging, resource};

/// Reads a backup.
pub(super) async fn get_backup(
    api: &Context,
    call: Call<GetBackupRequest>,
) -> Result<GetBackupResponse, Error> {
    let id = resource::backup("name", &call.message.name)?;
    let backup = access::backup(api, &call.caller, id, Permission::BackupsRead).await?;
    Ok(GetBackupResponse {
        backup: Some(convert::backup(&backup)),
    })
}

/// Lists the backups the caller may see, newest first.
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
