//! DeleteBackup.

use domain::access::Permission;
use rpc::backup::v1::{DeleteBackupRequest, DeleteBackupResponse};
use storage::ArtifactKey;
use store::backups::{Backup, DeleteBackupError};

use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{access, resource};

/// Deletes a backup with its artifact.
pub(super) async fn delete_backup(
    api: &Context,
    call: Call<DeleteBackupRequest>,
) -> Result<DeleteBackupResponse, Error> {
    let id = resource::backup("name", &call.message.name)?;
    access::backup(api, &call.caller, id, Permission::BackupsDelete).await?;
    let deleted = api.store.backups().delete(id).await;
    let backup = deleted.map_err(|error| match error {
        DeleteBackupError::NotFound => access::no_backup(id),
        DeleteBackupError::InUse { operations } => Error::InUse {
            kind: ResourceKind::Backup,
            name: format!("backups/{id}"),
            description: "operations that use the backup have not ended".to_owned(),
            holders: operations
                .iter()
                .map(|operation| format!("operations/{operation}"))
                .collect(),
        },
        DeleteBackupError::Store(error) => Error::Store(error),
    })?;
    delete_artifact(api, &backup).await;
    Ok(DeleteBackupResponse {})
}

/// The backup is gone whether or not this succeeds: an artifact that is left over belongs to no backup and is
/// found by that.
async fn delete_artifact(api: &Context, backup: &Backup) {
    let Some(key) = ArtifactKey::from_stored(&backup.artifact.storage_key) else {
        tracing::error!(backup.id = %backup.id, "the artifact of a deleted backup has no key");
        return;
    };
    if let Err(error) = api.artifacts.delete(&key).await {
        tracing::warn!(backup.id = %backup.id, %error, "the artifact of a deleted backup was left over");
    }
}
