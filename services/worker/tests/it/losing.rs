//! Workers that end, by order or by accident.

use std::time::Duration;

use domain::operation::{OperationOutcome, OperationState};
use harness::eventually;
use worker::WorkerOptions;

use crate::world::{DEADLINE, World};

/// A worker that is soon known to be lost.
fn short(world: &World) -> WorkerOptions {
    WorkerOptions {
        lease: Duration::from_secs(5),
        ..world.options()
    }
}

/// A worker that drains for a moment only.
fn impatient(world: &World) -> WorkerOptions {
    WorkerOptions {
        drain_timeout: Duration::from_millis(100),
        ..world.options()
    }
}

#[tokio::test]
async fn worker_that_ends_lets_running_operations_finish() {
    let world = World::with_data().await;
    let worker = world.start().await;
    let blocker = world.owner().await;
    blocker.batch_execute("BEGIN; LOCK other.t").await.unwrap();
    let id = world.backup(&["other"]).await;
    world.blocked(id).await;
    let ending = worker.end();
    let release = async { blocker.batch_execute("COMMIT").await.unwrap() };
    tokio::join!(ending, release);
    world.succeeded(id).await;
}

#[tokio::test]
async fn backup_is_handed_back_when_the_time_to_drain_is_over() {
    let world = World::with_data().await;
    let worker = world.start_with(impatient(&world)).await;
    let blocker = world.owner().await;
    blocker.batch_execute("BEGIN; LOCK other.t").await.unwrap();
    let id = world.backup(&["other"]).await;
    world.blocked(id).await;
    worker.end().await;
    assert_eq!(world.operation(id).await.state, OperationState::Queued);
    assert_eq!(world.backends(id).await, 0);
    blocker.batch_execute("COMMIT").await.unwrap();
    let _another = world.start().await;
    let operation = world.succeeded(id).await;
    assert_eq!(operation.attempt, 2);
    assert_eq!(world.artifact_files().len(), 1);
}

/// A restore that waits for a lock.
async fn blocked_restore(world: &World) -> (harness::Connection, domain::id::OperationId) {
    let worker = world.start().await;
    let backup = world
        .succeeded(world.backup(&["shop"]).await)
        .await
        .backup_id
        .unwrap();
    worker.end().await;
    let owner = world.owner().await;
    owner.batch_execute("DROP SCHEMA shop CASCADE").await.unwrap();
    owner.batch_execute("BEGIN; CREATE SCHEMA shop").await.unwrap();
    (owner, world.restore(backup).await)
}

#[tokio::test]
async fn restore_fails_when_the_time_to_drain_is_over() {
    let world = World::with_data().await;
    let (_owner, id) = blocked_restore(&world).await;
    let worker = world.start_with(impatient(&world)).await;
    world.blocked(id).await;
    worker.end().await;
    assert_eq!(world.failed(id).await.reason, "SHUTTING_DOWN");
    assert_eq!(world.backends(id).await, 0);
}

#[tokio::test]
async fn backup_of_a_killed_worker_is_begun_anew() {
    let world = World::with_data().await;
    let blocker = world.owner().await;
    blocker.batch_execute("BEGIN; LOCK other.t").await.unwrap();
    let worker = world.start_with(short(&world)).await;
    let id = world.backup(&["other"]).await;
    world.blocked(id).await;
    worker.kill().await;
    let _another = world.start_with(short(&world)).await;
    eventually(DEADLINE, "another worker begins it", async || {
        world.operation(id).await.attempt >= 2
    })
    .await;
    blocker.batch_execute("COMMIT").await.unwrap();
    world.succeeded(id).await;
    assert_eq!(world.artifact_files().len(), 1);
}

#[tokio::test]
async fn restore_of_a_killed_worker_fails_and_its_backend_ends() {
    let world = World::with_data().await;
    let (_owner, id) = blocked_restore(&world).await;
    let worker = world.start_with(short(&world)).await;
    world.blocked(id).await;
    worker.kill().await;
    let _another = world.start_with(short(&world)).await;
    assert_eq!(world.failed(id).await.reason, "LOST");
    eventually(DEADLINE, "its backend ends", async || {
        world.backends(id).await == 0
    })
    .await;
    assert!(!matches!(
        world.operation(id).await.state,
        OperationState::Ended(OperationOutcome::Succeeded)
    ));
}

#[tokio::test]
async fn worker_that_lost_its_lease_stops_and_writes_nothing() {
    let world = World::with_data().await;
    let blocker = world.owner().await;
    blocker.batch_execute("BEGIN; LOCK other.t").await.unwrap();
    let _worker = world.start().await;
    let id = world.backup(&["other"]).await;
    world.blocked(id).await;
    // Another worker has it now, as far as the database is concerned.
    let taken = "UPDATE pgmoor.operations SET attempt = attempt + 1, lease_until = clock_timestamp() + interval '1 hour'";
    let endpoint = world.cluster.endpoint();
    let config = endpoint.connect(&endpoint.superuser(), world.config_name()).await;
    config.batch_execute(taken).await.unwrap();
    eventually(DEADLINE, "the program and its backend end", async || {
        world.backends(id).await == 0
    })
    .await;
    blocker.batch_execute("COMMIT").await.unwrap();
    eventually(DEADLINE, "the slot is given back", async || {
        world.slots.now() == 0
    })
    .await;
    let operation = world.operation(id).await;
    assert_eq!((operation.state, operation.attempt), (OperationState::Running, 2));
    assert_eq!(world.artifact_files(), Vec::<std::path::PathBuf>::new());
}
