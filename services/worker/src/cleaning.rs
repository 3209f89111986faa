//! What is left when something ended without cleaning up: lost operations, unfinished uploads, artifacts without a backup.

use domain::clock::Clock;
use domain::id::BackupId;
use storage::ArtifactKey;
use store::StoreError;
use store::operations::LostOperation;

use crate::Context;
use crate::failure::Halt;
use crate::job::application_name;
use crate::journal::Journal;
use crate::reach::Reach;

/// Deals with operations whose worker is gone. Its program may live on, and its backends: they are ended, so that nothing
/// goes on that the record says has failed.
pub(crate) async fn reap(context: &Context) {
    let lost = match context.store.operations().reap_lost().await {
        Ok(lost) => lost,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "lost operations are not dealt with"
            );
            return;
        }
    };
    for operation in lost {
        let id = operation.attempt.operation_id;
        tracing::warn!(operation.id = %id, fate = ?operation.fate, "the worker of an operation was lost");
        if let Err(Halt::Failed(failure)) = end_backends(context, &operation).await {
            tracing::warn!(operation.id = %id, failure.message, "backends of a lost operation may be left");
        }
    }
}

async fn end_backends(context: &Context, lost: &LostOperation) -> Result<(), Halt> {
    let Some(operation) = context.store.operations().get(lost.attempt.operation_id).await? else {
        return Ok(());
    };
    let name = application_name(&lost.attempt);
    let journal = Journal::new(0);
    let who = (operation.server_id, operation.owner_id);
    let reach = Reach::find(context, who, &operation.database, name, &journal).await?;
    reach.end_backends().await.map(drop)
}

/// Removes what is abandoned or too old.
pub(crate) async fn clean(context: &Context, clock: &dyn Clock) {
    let options = &context.options;
    let before = clock.now() - options.abandoned_after;
    if let Err(error) = context.files.remove_abandoned(before).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "unfinished uploads are not removed"
        );
    }
    match context.artifacts.list_before(before).await {
        Ok(keys) => {
            for key in keys {
                remove_orphan(context, &key).await;
            }
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "artifacts are not looked through"
            );
        }
    }
    if let Err(error) = context.store.operations().prune(options.keep_operations).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "old operations are not forgotten"
        );
    }
}

/// Removes an artifact where no backup names it.
async fn remove_orphan(context: &Context, key: &ArtifactKey) {
    let Some(backup) = key.backup() else { return };
    match is_named(context, backup, key).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!(
                artifact = key.as_str(),
                "an artifact that belongs to no backup is removed"
            );
            if let Err(error) = context.artifacts.delete(key).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an artifact is not removed"
                );
            }
        }
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a backup is not looked up"
        ),
    }
}

async fn is_named(context: &Context, backup: BackupId, key: &ArtifactKey) -> Result<bool, StoreError> {
    let backup = context.store.backups().get(backup).await?;
    Ok(backup.is_some_and(|backup| backup.artifact.storage_key == key.as_str()))
}
