//! Old records go, and what is left can still be verified.

use std::sync::Arc;
use std::time::Duration;

use audit::{AuditLog, LogOptions, WriterRole, retention};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use harness::{Cluster, eventually};

use crate::world::{DEADLINE, World, often};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn records_beyond_the_retention_go_and_the_rest_is_still_sound() {
    let world = World::new().await;
    let (old, young) = (world.trail(10).await, world.trail(10).await);
    let connection = world.database.connect().await;
    // As if they had arrived long ago: all of one chain, and half of the other.
    connection
        .batch_execute(&format!(
            "UPDATE pgmoor.audit_records SET insert_time = insert_time - interval '40 days' \
             WHERE writer = '{old}' OR (writer = '{young}' AND sequence <= 6)"
        ))
        .await
        .unwrap();
    let worker = world.store_as(Cluster::shared().await, "pgmoor_worker").await;
    let (log, _writer) = AuditLog::new(
        WriterRole::Worker,
        LogOptions::default(),
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    );
    retention::cut(&worker, &log, 30 * DAY).await;
    assert_eq!(log.figures().buffered, 1, "a record says so");
    assert!(
        world
            .trail_now()
            .await
            .chain(old, 0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let rest = world.trail_now().await.chain(young, 0, 10).await.unwrap();
    assert_eq!(rest.first().unwrap().record.sequence, 7);
    let verifier = world.verify(young).await.unwrap();
    assert_eq!((verifier.records, verifier.ended()), (6, true));
    assert_eq!(
        world
            .trail_now()
            .await
            .anchor(young)
            .await
            .unwrap()
            .unwrap()
            .sequence,
        6
    );

    // More than retention took.
    let sql = format!("DELETE FROM pgmoor.audit_records WHERE writer = '{young}' AND sequence = 7");
    connection.batch_execute(&sql).await.unwrap();
    world.verify(young).await.unwrap_err();
}

#[tokio::test]
async fn worker_deletes_nothing_younger_than_a_day_whatever_it_asks_for() {
    let world = World::new().await;
    let writer = world.trail(3).await;
    let worker = world.store_as(Cluster::shared().await, "pgmoor_worker").await;
    assert_eq!(worker.audit().cut(Duration::ZERO, 1000).await.unwrap(), 0);
    // Nor does a writer's own clock make a record old.
    let connection = world.database.connect().await;
    connection
        .batch_execute("UPDATE pgmoor.audit_records SET time = time - interval '10 years'")
        .await
        .unwrap();
    assert_eq!(worker.audit().cut(Duration::ZERO, 1000).await.unwrap(), 0);
    assert_eq!(
        world.trail_now().await.chain(writer, 0, 10).await.unwrap().len(),
        5
    );
}

#[tokio::test]
async fn trail_of_a_moment_is_whole_whatever_is_written_and_cut_after_it() {
    let world = World::new().await;
    let cluster = Cluster::shared().await;
    let (old, young) = (world.trail(10).await, world.process(cluster, often()).await);
    young.call(1);
    eventually(DEADLINE, "the younger writer has begun", async || {
        let kept = world.trail_now().await.chain(young.id, 0, 10).await.unwrap();
        (kept.len() == 2).then_some(()).ok_or(kept.len())
    })
    .await;
    let mut moment = world.trail_now().await;
    let anchor = moment.anchor(old).await.unwrap();
    assert_eq!(anchor, None);

    let connection = world.database.connect().await;
    let aged = format!(
        "UPDATE pgmoor.audit_records SET insert_time = insert_time - interval '40 days' WHERE writer = '{old}'"
    );
    connection.batch_execute(&aged).await.unwrap();
    let worker = world.store_as(cluster, "pgmoor_worker").await;
    assert_eq!(worker.audit().cut(30 * DAY, 1000).await.unwrap(), 12);
    young.call(2);
    let young = young.end().await;
    let (last, next) = if old < young { (young, old) } else { (old, young) };
    assert_eq!(moment.next_writer(None).await.unwrap(), Some(next));
    assert_eq!(moment.next_writer(Some(next)).await.unwrap(), Some(last));
    assert_eq!(moment.chain(old, 0, 100).await.unwrap().len(), 12);
    assert_eq!(moment.chain(young, 0, 100).await.unwrap().len(), 2);
    assert!(moment.writer(young).await.unwrap().is_some());

    let mut now = world.trail_now().await;
    assert_eq!(now.next_writer(None).await.unwrap(), Some(young));
    assert_eq!(now.anchor(old).await.unwrap().unwrap().sequence, 12);
    assert!(world.verify(young).await.unwrap().ended());
}
