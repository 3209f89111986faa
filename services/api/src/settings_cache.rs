//! The settings in memory, so that no Execute waits for the config database.
//!
//! One poller per process asks for the revision a few times a second and fetches what changed. Invariant: a
//! layer in memory is as it was at some revision, the revision the cache states or a later one, and it never
//! goes back. The first call of a user on an instance reads their layer; from then on it is kept up to date.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::id::UserId;
use domain::settings::{Layer, Settings};
use store::settings::{Layer as LayerName, SettingChange};
use store::{Store, StoreError};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::settings::convert::stored_text;

/// Time between two looks at the revision: a change reaches a watcher on another instance well within a
/// second.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What was known at one moment.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    revision: i64,
    defaults: Arc<Layer>,
    users: HashMap<UserId, Arc<Layer>>,
}

/// The cache. Cloning it shares it.
#[derive(Debug, Clone)]
pub(crate) struct SettingsCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    snapshot: ArcSwap<Snapshot>,
    /// Held while a newer snapshot is made, so that none is overwritten by an older one.
    writing: Mutex<()>,
    revision: watch::Sender<i64>,
}

impl SettingsCache {
    /// Reads the administrator's defaults.
    pub(crate) async fn start(store: Store) -> Result<Self, StoreError> {
        let read = store.settings().since(&[LayerName::Defaults], 0).await?;
        let mut snapshot = Snapshot {
            revision: read.revision,
            ..Snapshot::default()
        };
        read.changes
            .into_iter()
            .for_each(|change| snapshot.apply(&change));
        Ok(Self(Arc::new(Inner {
            store,
            revision: watch::Sender::new(snapshot.revision),
            snapshot: ArcSwap::from_pointee(snapshot),
            writing: Mutex::new(()),
        })))
    }

    /// A user's settings. Reads the config database only the first time it is asked for this user.
    pub(crate) async fn of(&self, user: UserId) -> Result<Settings, StoreError> {
        let snapshot = self.0.snapshot.load();
        if let Some(layer) = snapshot.users.get(&user) {
            return Ok(Settings::new(snapshot.defaults.clone(), layer.clone()));
        }
        drop(snapshot);
        self.load(user).await?;
        let snapshot = self.0.snapshot.load();
        let layer = snapshot.users.get(&user).cloned().unwrap_or_default();
        Ok(Settings::new(snapshot.defaults.clone(), layer))
    }

    /// The administrator's defaults as they are in force for somebody without choices of their own.
    pub(crate) fn defaults(&self) -> Settings {
        Settings::new(self.0.snapshot.load().defaults.clone(), Arc::default())
    }

    /// The revision that every layer in memory has reached.
    pub(crate) fn revision(&self) -> i64 {
        self.0.snapshot.load().revision
    }

    /// Tells when the revision goes up.
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.revision.subscribe()
    }

    /// Brings the cache to the config database's revision of now, with one query where nothing changed.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let current = self.0.store.settings().revision().await?;
        if current <= self.revision() {
            return Ok(());
        }
        let _writing = self.0.writing.lock().await;
        let before = self.0.snapshot.load_full();
        if current <= before.revision {
            return Ok(());
        }
        let layers: Vec<_> = std::iter::once(LayerName::Defaults)
            .chain(before.users.keys().copied().map(LayerName::User))
            .collect();
        let read = self.0.store.settings().since(&layers, before.revision).await?;
        let mut after = Snapshot::clone(&before);
        read.changes.iter().for_each(|change| after.apply(change));
        after.revision = after.revision.max(read.revision);
        let revision = after.revision;
        self.0.snapshot.store(Arc::new(after));
        self.0.revision.send_replace(revision);
        Ok(())
    }

    /// Keeps the cache up to date until it is told to stop. While the config database is away, what is known
    /// stays in force.
    pub(crate) async fn poll(&self, stop: CancellationToken) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut healthy = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let caught_up = tokio::select! {
                () = stop.cancelled() => return,
                caught_up = self.catch_up() => caught_up,
            };
            match caught_up {
                Ok(()) if healthy => {}
                Ok(()) => {
                    healthy = true;
                    tracing::info!("settings are up to date again");
                }
                Err(error) if healthy => {
                    healthy = false;
                    tracing::warn!(%error, "cannot look for changed settings, the known ones stay in force");
                }
                Err(_) => {}
            }
        }
    }

    async fn load(&self, user: UserId) -> Result<(), StoreError> {
        let _writing = self.0.writing.lock().await;
        let before = self.0.snapshot.load_full();
        if before.users.contains_key(&user) {
            return Ok(());
        }
        // This layer may be ahead of the others; applying its changes once more does no harm.
        let read = self.0.store.settings().since(&[LayerName::User(user)], 0).await?;
        let mut after = Snapshot::clone(&before);
        after.users.insert(user, Arc::default());
        read.changes.iter().for_each(|change| after.apply(change));
        self.0.snapshot.store(Arc::new(after));
        Ok(())
    }
}

impl Snapshot {
    fn apply(&mut self, change: &SettingChange) {
        let layer = match change.layer {
            LayerName::Defaults => &mut self.defaults,
            LayerName::User(user) => self.users.entry(user).or_default(),
        };
        let value = change.value.as_ref().and_then(stored_text);
        Arc::make_mut(layer).restore(&change.name, value.as_deref(), change.revision);
    }
}
