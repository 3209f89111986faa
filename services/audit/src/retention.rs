//! Removes what is older than the retention, and leaves a record of how much that was.

use std::time::Duration;

use store::Store;
use store::audit::{Entry, Kind};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::log::AuditLog;

/// Records that are deleted in a transaction.
const BATCH: u16 = 5000;
/// How often it is looked for what is too old.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Deletes records that arrived longer than `keep` ago, until `stop` is cancelled. Needs the role of a worker; several may do
/// it at once.
pub async fn run(store: Store, log: AuditLog, keep: Duration, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = cut(&store, &log, keep) => {}
        }
    }
}

/// Deletes what is too old now.
pub async fn cut(store: &Store, log: &AuditLog, keep: Duration) {
    let mut total = 0;
    loop {
        match store.audit().cut(keep, BATCH).await {
            Ok(0) => break,
            Ok(deleted) => total += deleted,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old audit records are not deleted"
                );
                break;
            }
        }
    }
    if total > 0 {
        tracing::info!(audit.deleted = total, "audit records reached their retention");
        log.record(Entry {
            count: total,
            ..log.entry(Kind::Retention)
        });
    }
}
