//! Backups and restores: the handlers of BackupService.
//!
//! Invariant: a request is checked whole before anything is queued; what it names is the caller's, and
//! everything else is as good as missing.

mod convert;
mod delete_backup;
mod enqueue;
mod read;
mod request_id;
mod start_backup;
mod start_restore;

use std::sync::Arc;

use rpc::backup::v1 as proto;
use rpc::backup::v1::backup_service_server::BackupService;

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.backup.v1.BackupService`.
#[derive(Debug)]
pub(crate) struct BackupRpcs(pub(crate) Arc<Context>);

rpcs! {
    BackupService for BackupRpcs {
        start_backup::start_backup(StartBackupRequest) -> StartBackupResponse;
        read::get_backup(GetBackupRequest) -> GetBackupResponse;
        read::list_backups(ListBackupsRequest) -> ListBackupsResponse;
        delete_backup::delete_backup(DeleteBackupRequest) -> DeleteBackupResponse;
        start_restore::start_restore(StartRestoreRequest) -> StartRestoreResponse;
    }
}
