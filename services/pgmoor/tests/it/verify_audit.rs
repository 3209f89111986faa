//! The audit trail is verified while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use audit::{AuditLog, Kind, LogOptions, WriterRole};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use store::{ConnectOptions, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::{SOON, migrated, pgmoor};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Records that are written at once, and removed at once.
const BATCH: u16 = 50;
/// How often the trail is verified.
const TIMES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trail_is_sound_while_it_is_written_and_reaches_its_retention() {
    let database = migrated().await;
    let url = database.url();
    let options = ConnectOptions {
        url: url.clone().into(),
        max_connections: 4,
        application_name: "the tests".to_owned(),
    };
    let store = Store::connect(&options).await.unwrap();
    let (log, writer) = AuditLog::new(
        WriterRole::Api,
        LogOptions {
            flush_interval: Duration::from_millis(10),
            ..LogOptions::default()
        },
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    );
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(writer.run(store.clone(), stop.clone()));
    let cut = Arc::new(AtomicI64::new(0));
    let counted = Arc::clone(&cut);
    let (connection, trail, stopped) = (database.connect().await, store.clone(), stop.clone());
    tasks.spawn(async move {
        while !stopped.is_cancelled() {
            for _ in 0..BATCH {
                log.record(log.entry(Kind::Call));
            }
            // All but the last have been there for long enough.
            let aged = "UPDATE pgmoor.audit_records SET insert_time = insert_time - interval '2 days' \
                        WHERE insert_time > clock_timestamp() - interval '1 day' \
                        AND position < (SELECT position - 100 FROM pgmoor.audit_position)";
            connection.batch_execute(aged).await.unwrap();
            let removed = trail.audit().cut(DAY, BATCH).await.unwrap();
            counted.fetch_add(removed, Ordering::Relaxed);
        }
    });

    let environment = [("PGMOOR_CONFIG_DATABASE_URL", url.as_str())];
    for _ in 0..TIMES {
        let before = cut.load(Ordering::Relaxed);
        harness::eventually(SOON, "more is removed", async || {
            cut.load(Ordering::Relaxed) > before
        })
        .await;
        let text = pgmoor(&["admin", "verify-audit"], &environment).succeeded();
        assert!(text.contains("0 tampered with"), "{text}");
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let text = pgmoor(&["admin", "verify-audit"], &environment).succeeded();
    assert!(text.contains("retention removed the first"), "{text}");
    store.close().await;
}
