//! The config database is away for a while, or hangs, and several processes write at once.

use std::time::Duration;

use audit::buffer::WhenFull;
use audit::{Filter, Kind, LogOptions};
use harness::{Cluster, ClusterOptions, eventually};

use crate::world::{DEADLINE, World, often};

fn calls() -> Filter {
    Filter {
        kinds: vec![Kind::Call],
        ..Filter::default()
    }
}

#[tokio::test]
async fn what_waits_while_the_database_is_away_is_written_and_what_finds_no_room_is_counted() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on(&cluster).await;
    let options = LogOptions {
        capacity: 100,
        when_full: WhenFull::Count,
        ..often()
    };
    let process = world.process(&cluster, options).await;
    process.call(0);
    eventually(DEADLINE, "the first record is written", async || {
        let figures = process.log.figures();
        (figures.buffered == 0 && figures.written >= 2)
            .then_some(())
            .ok_or_else(|| format!("{figures:?}"))
    })
    .await;
    cluster.stop().await;
    for number in 1..=100 {
        process.call(number);
    }
    assert_eq!(process.log.figures().buffered, 100);
    for number in 101..=150 {
        process.call(number);
    }
    assert_eq!(process.log.figures().unrecorded, 50);
    cluster.start_again().await;
    let kept = eventually(DEADLINE, "everything is written", async || {
        let kept = world.store.audit().after(0, &calls(), 1000).await;
        let kept = kept.map_err(|error| error.to_string())?;
        (kept.len() == 101).then_some(kept).ok_or_else(String::new)
    })
    .await;
    let numbers: Vec<i64> = kept.iter().map(|kept| kept.record.entry.row_count).collect();
    assert_eq!(numbers, (0..=100).collect::<Vec<_>>());
    let writer = process.end().await;
    let verifier = world.verify(writer).await.unwrap();
    assert_eq!((verifier.unrecorded, verifier.ended()), (50, true));
}

#[tokio::test]
async fn who_follows_several_writers_misses_nothing_and_sees_nothing_twice() {
    let world = World::new().await;
    let cluster = Cluster::shared().await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(world.process(cluster, often()).await);
    }
    let (mut position, mut seen) = (0, Vec::new());
    let mut sent = 0;
    eventually(DEADLINE, "everything is seen", async || {
        for process in &processes {
            for number in 0..20 {
                if sent < 3 * 400 {
                    process.call(number);
                    sent += 1;
                }
            }
        }
        let kept = world.store.audit().after(position, &calls(), 100).await.unwrap();
        for kept in kept {
            assert!(kept.position > position);
            position = kept.position;
            seen.push((kept.record.writer, kept.record.sequence));
        }
        (seen.len() == 1200).then_some(()).ok_or(seen.len())
    })
    .await;
    let mut unique = seen.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 1200);
    for process in processes {
        let writer = process.end().await;
        assert!(world.verify(writer).await.unwrap().ended());
    }
}

#[tokio::test]
async fn writer_whose_database_hangs_lets_no_call_in_once_a_record_is_older_than_the_window() {
    const WINDOW: Duration = Duration::from_millis(300);
    let world = World::new().await;
    let options = LogOptions {
        when_full: WhenFull::Refuse,
        loss_window: WINDOW,
        ..often()
    };
    let process = world.process(Cluster::shared().await, options).await;
    eventually(DEADLINE, "the writer has begun", async || {
        let figures = process.log.figures();
        (figures.written > 0)
            .then_some(())
            .ok_or_else(|| format!("{figures:?}"))
    })
    .await;
    let open = process.log.reserve().unwrap();
    let holder = world.database.connect().await;
    let lock = "BEGIN; LOCK TABLE pgmoor.audit_records IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(lock).await.unwrap();
    process.call(1);
    eventually(DEADLINE, "calls are refused", async || {
        let refused = process.log.reserve().err();
        refused.ok_or_else(|| format!("{:?}", process.log.figures()))
    })
    .await;
    let figures = process.log.figures();
    assert!(
        figures.oldest.unwrap() > WINDOW && figures.buffered < 10,
        "{figures:?}"
    );
    // Who was let in before is recorded.
    open.record(process.log.entry(Kind::Call));
    assert_eq!(process.log.figures().unrecorded, 0);
    holder.batch_execute("ROLLBACK").await.unwrap();
    eventually(DEADLINE, "calls are let in again", async || {
        let place = process.log.reserve();
        place
            .map(drop)
            .map_err(|_| format!("{:?}", process.log.figures()))
    })
    .await;
    let writer = process.end().await;
    assert_eq!(world.verify(writer).await.unwrap().unrecorded, 0);
    let kept = world.store.audit().after(0, &calls(), 10).await.unwrap();
    assert_eq!(kept.len(), 2);
}
