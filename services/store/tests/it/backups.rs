//! Backups.

use domain::id::BackupId;
use domain::operation::{OperationKind, OperationOutcome, OperationState};
use domain::random::SystemRandom;
use store::PageRequest;
use store::backups::{Backup, DeleteBackupError};
use store::operations::{EnqueueError, NewOperation};
use store::servers::Server;

use crate::support::{HOUR, World, new_backup, new_operation};

async fn backup(world: &World, server: &Server) -> Backup {
    let queued = world.enqueue(&new_operation(server, OperationKind::Backup)).await;
    let claimed = world.claim(HOUR).await;
    let new = new_backup(queued.backup_id.unwrap());
    world
        .store
        .operations()
        .finish_backup(&claimed.attempt, &new)
        .await
        .unwrap()
}

#[tokio::test]
async fn backup_appears_with_the_end_of_its_operation() {
    let world = World::new().await;
    let server = world.any_server().await;
    let queued = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let claimed = world.claim(HOUR).await;
    let new = new_backup(queued.backup_id.unwrap());
    assert!(world.store.backups().get(new.id).await.unwrap().is_none());
    let made = world
        .store
        .operations()
        .finish_backup(&claimed.attempt, &new)
        .await
        .unwrap();
    assert_eq!(world.store.backups().get(new.id).await.unwrap().unwrap(), made);
    assert_eq!(
        (made.operation_id, made.server_id, made.owner_id),
        (queued.id, server.id, server.owner_id)
    );
    assert_eq!(
        (&made.artifact, &made.schemas, &made.tables),
        (&new.artifact, &new.schemas, &new.tables)
    );
    let ended = world.store.operations().get(queued.id).await.unwrap().unwrap();
    assert_eq!(ended.state, OperationState::Ended(OperationOutcome::Succeeded));
}

#[tokio::test]
async fn backups_are_listed_newest_first() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (first, second) = (backup(&world, &server).await, backup(&world, &server).await);
    let listed = world
        .store
        .backups()
        .list(server.owner_id, &PageRequest::default())
        .await
        .unwrap();
    assert_eq!((listed.items, listed.next), (vec![second, first], None));
}

#[tokio::test]
async fn backup_is_kept_while_it_is_restored() {
    let world = World::new().await;
    let server = world.any_server().await;
    let made = backup(&world, &server).await;
    let restore = NewOperation {
        backup_id: Some(made.id),
        ..new_operation(&server, OperationKind::Restore)
    };
    let queued = world.enqueue(&restore).await;
    let error = world.store.backups().delete(made.id).await.unwrap_err();
    assert!(
        matches!(&error, DeleteBackupError::InUse { operations } if *operations == [queued.id]),
        "{error:?}"
    );
    world.store.operations().cancel(queued.id).await.unwrap();
    assert_eq!(world.store.backups().delete(made.id).await.unwrap(), made);
    let error = world
        .store
        .backups()
        .delete(BackupId::generate(&SystemRandom))
        .await
        .unwrap_err();
    assert!(matches!(error, DeleteBackupError::NotFound));
    let again = NewOperation {
        backup_id: Some(made.id),
        ..new_operation(&server, OperationKind::Restore)
    };
    let error = world.store.operations().enqueue(&again).await.unwrap_err();
    assert!(matches!(error, EnqueueError::BackupNotFound));
}
