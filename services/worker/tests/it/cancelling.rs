//! Cancellation reaches the program and its backend.

use domain::operation::{OperationOutcome, OperationPhase};
use harness::eventually;

use crate::world::{DEADLINE, World};

/// The ids of processes whose command line has this text.
fn processes_with(text: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let command = std::fs::read(path.join("cmdline")).ok()?;
            String::from_utf8_lossy(&command)
                .contains(text)
                .then(|| path.display().to_string())
        })
        .collect()
}

#[tokio::test]
async fn cancelled_backup_leaves_no_process_no_backend_and_no_artifact() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let blocker = world.owner().await;
    blocker.batch_execute("BEGIN; LOCK other.t").await.unwrap();
    let id = world.backup(&["other"]).await;
    world.blocked(id).await;
    let database = format!("dbname='{}'", world.target.name());
    assert_eq!(processes_with(&database).len(), 1);
    let process = processes_with(&database).remove(0);
    let environment =
        String::from_utf8_lossy(&std::fs::read(format!("{process}/environ")).unwrap()).into_owned();
    assert!(
        environment.contains(&format!("PGAPPNAME=pgmoor/op/{id}/1")),
        "{environment}"
    );
    assert!(
        !environment.contains(&world.login.password),
        "the password is in the environment"
    );

    world.store.operations().cancel(id).await.unwrap();
    let (operation, outcome) = world.ended(id).await;
    assert_eq!(outcome, OperationOutcome::Cancelled);
    assert!(operation.cancel_requested);
    assert_eq!(world.backends(id).await, 0);
    assert_eq!(processes_with(&database), Vec::<String>::new());
    assert_eq!(world.artifact_files(), Vec::<std::path::PathBuf>::new());
    let backup = world
        .store
        .backups()
        .get(operation.backup_id.unwrap())
        .await
        .unwrap();
    assert_eq!(backup, None);
    eventually(DEADLINE, "the slot is given back", async || {
        world.slots.now() == 0
    })
    .await;
}

#[tokio::test]
async fn cancelled_restore_is_rolled_back() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let backup = world
        .succeeded(world.backup(&["shop"]).await)
        .await
        .backup_id
        .unwrap();
    let owner = world.owner().await;
    owner.batch_execute("DROP SCHEMA shop CASCADE").await.unwrap();
    // Somebody else is about to make the schema: the restore waits to see how that ends.
    owner.batch_execute("BEGIN; CREATE SCHEMA shop").await.unwrap();
    let id = world.restore(backup).await;
    world.blocked(id).await;
    world.store.operations().cancel(id).await.unwrap();
    let (_, outcome) = world.ended(id).await;
    assert_eq!(outcome, OperationOutcome::Cancelled);
    assert_eq!(world.backends(id).await, 0);
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert!(!world.exists("shop").await);
}

#[tokio::test]
async fn operation_that_waits_for_slots_is_cancelled_at_once() {
    let mut world = World::with_data().await;
    world.slots = std::sync::Arc::new(crate::slots::SlotGiver::new(0));
    let _worker = world.start().await;
    let id = world.backup(&["shop"]).await;
    eventually(DEADLINE, "the operation waits", async || {
        world.operation(id).await.progress.phase == Some(OperationPhase::WaitingForSlots)
    })
    .await;
    world.store.operations().cancel(id).await.unwrap();
    assert_eq!(world.ended(id).await.1, OperationOutcome::Cancelled);
    assert_eq!(world.slots.most(), 0);
}
