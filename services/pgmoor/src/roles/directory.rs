//! Keeps the copy of "which pooler owns what" fresh, so that no call has to ask the config database.
//!
//! While the database does not answer, the last copy stays: poolers serve what they have, and calls go on.

use std::time::Duration;

use sessions::directory::{Directory, PoolerEntry, Snapshot};
use store::poolers::{Pooler, PoolerState};
use store::{Store, StoreError};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks once.
///
/// # Errors
/// When the database does not answer; the copy stays as it is.
pub(crate) async fn refresh(store: &Store, directory: &Directory) -> Result<(), StoreError> {
    let found = store.directory().await?;
    directory.replace(Snapshot {
        poolers: found.poolers.into_iter().map(entry).collect(),
        owners: found.owners.into_iter().collect(),
    });
    Ok(())
}

fn entry(pooler: Pooler) -> PoolerEntry {
    PoolerEntry {
        pooler: pooler.id,
        incarnation: pooler.incarnation,
        address: pooler.address,
        takes_new_sessions: pooler.state == PoolerState::Serving && !pooler.lapsed,
        is_alive: !pooler.lapsed,
    }
}

/// Asks every second until `retire`, and tells `live` each time whether any pooler is known.
pub(crate) async fn poll<Told: Future<Output = ()>>(
    store: Store,
    directory: Directory,
    live: impl Fn(bool) -> Told,
    retire: CancellationToken,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = retire.cancelled() => return,
        }
        let refreshed = tokio::select! {
            refreshed = refresh(&store, &directory) => refreshed,
            () = retire.cancelled() => return,
        };
        // Once per outage, not once per second.
        match &refreshed {
            Ok(()) if failing => tracing::info!("the directory of poolers is fresh again"),
            Err(error) if !failing => {
                tracing::warn!(error = %error, "the directory of poolers grows old");
            }
            _ => {}
        }
        failing = refreshed.is_err();
        live(directory.snapshot().poolers.iter().any(|pooler| pooler.is_alive)).await;
    }
}
