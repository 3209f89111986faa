//! Keeps the copy of "which pooler owns what" fresh, so that no call has to ask the config database.
//!
//! While the database does not answer, the last copy stays: poolers serve what they have, and calls go on.

use std::time::Duration;

use sessions::directory::{Directory, PoolerEntry, Snapshot};
use store::poolers::{Pooler, PoolerState};
use store::{Store, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// After an outage of the database poolers need so long until all have given a sign of life again.
const COMING_BACK: Duration = Duration::from_secs(15);

/// Asks once.
///
/// # Errors
/// When the database does not answer; the copy stays as it is.
pub(crate) async fn refresh(store: &Store, directory: &Directory) -> Result<(), StoreError> {
    look(store, directory, false).await
}

/// `coming_back`: no pooler could give a sign of life lately, and that none did means nothing.
async fn look(store: &Store, directory: &Directory, coming_back: bool) -> Result<(), StoreError> {
    let found = store.directory().await?;
    if coming_back && found.poolers.iter().all(|pooler| pooler.lapsed) {
        return Ok(());
    }
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
    let mut back_at: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = retire.cancelled() => return,
        }
        let refreshed = tokio::select! {
            refreshed = look(&store, &directory, failing || back_at.is_some_and(|at| at.elapsed() < COMING_BACK)) => refreshed,
            () = retire.cancelled() => return,
        };
        // Once per outage, not once per second.
        match &refreshed {
            Ok(()) if failing => {
                back_at = Some(Instant::now());
                tracing::info!("the directory of poolers is fresh again");
            }
            Err(error) if !failing => {
                tracing::warn!(error = %error, "the directory of poolers grows old");
            }
            _ => {}
        }
        failing = refreshed.is_err();
        live(directory.snapshot().poolers.iter().any(|pooler| pooler.is_alive)).await;
    }
}
