//! Backups, from the wish to the artifact.

use domain::backup::BackupSelection;
use domain::operation::OperationPhase;
use harness::eventually;

use crate::world::{DEADLINE, World, name};

#[tokio::test]
async fn schema_that_was_backed_up_and_dropped_is_restored_row_for_row() {
    let world = World::with_data().await;
    let worker = world.start().await;
    let before = world.checksum().await;
    let id = world.backup(&["shop"]).await;
    let operation = world.succeeded(id).await;
    let backup = world
        .store
        .backups()
        .get(operation.backup_id.unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(operation.progress.phase, Some(OperationPhase::Finishing));
    assert_eq!(backup.operation_id, id);
    assert!(backup.artifact.size_bytes > 1000 && backup.schemas == [name("shop")]);
    let [artifact] = world.artifact_files().try_into().unwrap();
    assert_eq!(
        std::fs::metadata(&artifact).unwrap().len(),
        backup.artifact.size_bytes
    );
    assert!(std::fs::read(&artifact).unwrap().starts_with(b"PGDMP"));
    let log = world.log(id).await;
    assert!(log.contains("dumping contents of table \"shop.orders\""), "{log}");
    assert!(!log.contains("contents of table \"other.t\""), "{log}");
    assert!(!log.contains(&world.login.password), "{log}");

    let owner = world.owner().await;
    owner
        .batch_execute("DROP SCHEMA shop CASCADE; UPDATE other.t SET x = 2")
        .await
        .unwrap();
    let id = world.restore(backup.id).await;
    let operation = world.succeeded(id).await;
    assert_eq!(world.checksum().await, before);
    let other: i32 = owner
        .query_one("SELECT x FROM other.t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(other, 2);
    let progress = operation.progress;
    assert_eq!(progress.bytes_done, backup.artifact.size_bytes);
    assert_eq!(progress.bytes_total, Some(backup.artifact.size_bytes));
    assert!(world.log(id).await.contains("creating TABLE \"shop.orders\""));

    eventually(DEADLINE, "all slots are given back", async || {
        world.slots.now() == 0
    })
    .await;
    worker.end().await;
    let scratch = std::fs::read_dir(world.directory.path().join("scratch")).unwrap();
    assert_eq!(scratch.count(), 0, "no scratch file is left");
}

#[tokio::test]
async fn single_table_with_an_odd_name_is_backed_up() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let selection = BackupSelection::Tables(vec![(name("shop"), name("Odd.*"))]);
    let id = world.backup_of(selection, world.server.id).await;
    let operation = world.succeeded(id).await;
    world
        .owner()
        .await
        .batch_execute("DROP TABLE shop.\"Odd.*\"")
        .await
        .unwrap();
    world
        .succeeded(world.restore(operation.backup_id.unwrap()).await)
        .await;
    let query = "SELECT count(*) FROM shop.\"Odd.*\"";
    let rows: i64 = world.owner().await.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(rows, 100);
}

#[tokio::test]
async fn password_is_taken_out_of_log_and_error() {
    let world = World::new().await;
    let _worker = world.start().await;
    let schema = world.login.password.clone();
    world
        .owner()
        .await
        .batch_execute(&format!(
            "CREATE SCHEMA \"{schema}\"; CREATE TABLE \"{schema}\".t ()"
        ))
        .await
        .unwrap();
    let id = world.backup(&[&schema]).await;
    world.succeeded(id).await;
    let log = world.log(id).await;
    assert!(log.contains("********.t") && !log.contains(&schema), "{log}");
    let failure = world
        .failed(world.backup(&[&format!("{schema} missing")]).await)
        .await;
    assert!(
        failure.message.contains("********") && !failure.message.contains(&schema),
        "{failure:?}"
    );
}

#[tokio::test]
async fn operations_wait_for_slots_and_for_each_other() {
    let world = World::with_data().await;
    let _worker = world
        .start_with(worker::WorkerOptions {
            concurrency: 3,
            ..world.options()
        })
        .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.backup(&["other"]).await);
    }
    for id in ids {
        world.succeeded(id).await;
    }
    assert!((1..=2).contains(&world.slots.most()), "{}", world.slots.most());
    eventually(DEADLINE, "all slots are given back", async || {
        world.slots.now() == 0
    })
    .await;
}
