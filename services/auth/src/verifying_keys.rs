//! The public keys that access tokens are checked with, as last read from the config database.
//!
//! Invariant: a key that is not known is asked for, but at most once a second for all callers together, and
//! few may wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ed25519_dalek::VerifyingKey;
use store::{Store, StoreError};
use time::OffsetDateTime;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::signing_key::{KeyId, read_public};

/// The least time between two reads for keys nobody knows.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many callers with unknown keys wait at a time.
const WAITING: usize = 16;

/// Why a key is not there.
#[derive(Debug)]
pub(crate) enum NoKey {
    /// There is no such key.
    Unknown,
    /// Too many ask for unknown keys.
    Crowded,
    /// The config database failed.
    Store(StoreError),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: VerifyingKey,
    retires: Option<OffsetDateTime>,
}

/// The keys.
#[derive(Debug)]
pub(crate) struct VerifyingKeys {
    store: Store,
    known: ArcSwap<HashMap<KeyId, Entry>>,
    /// When the last read began. Held while reading, so that everybody waits for one read.
    read_at: Mutex<Instant>,
    waiting: Semaphore,
}

impl VerifyingKeys {
    /// Reads the keys.
    pub(crate) async fn read(store: Store) -> Result<Self, StoreError> {
        let read_at = Instant::now();
        let known = ArcSwap::from_pointee(read(&store).await?);
        Ok(Self {
            store,
            known,
            read_at: Mutex::new(read_at),
            waiting: Semaphore::new(WAITING),
        })
    }

    /// The key, if it is known and verifies at this moment.
    pub(crate) fn known(&self, id: KeyId, now: OffsetDateTime) -> Option<VerifyingKey> {
        let known = self.known.load();
        let entry = known.get(&id)?;
        entry
            .retires
            .is_none_or(|retires| now < retires)
            .then_some(entry.key)
    }

    /// A key that is not known, read anew.
    pub(crate) async fn get(&self, id: KeyId, now: OffsetDateTime) -> Result<VerifyingKey, NoKey> {
        let arrived = Instant::now();
        let _place = self.waiting.try_acquire().map_err(|_| NoKey::Crowded)?;
        let mut read_at = self.read_at.lock().await;
        // Somebody's read that began after this caller came answers for them too.
        if *read_at < arrived {
            sleep_until(*read_at + INTERVAL).await;
            *read_at = Instant::now();
            self.known
                .store(Arc::new(read(&self.store).await.map_err(NoKey::Store)?));
        }
        self.known(id, now).ok_or(NoKey::Unknown)
    }

    /// Reads the keys anew, to hear of those that were retired.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let mut read_at = self.read_at.lock().await;
        *read_at = Instant::now();
        self.known.store(Arc::new(read(&self.store).await?));
        Ok(())
    }
}

async fn read(store: &Store) -> Result<HashMap<KeyId, Entry>, StoreError> {
    let keys = store.signing_keys().verifying().await?;
    let mut known = HashMap::new();
    for key in keys {
        let Some(public) = read_public(&key.public_key) else {
            tracing::error!(key.id = %key.id, "a signing key is refused: its public half is broken");
            continue;
        };
        known.insert(
            KeyId::new(key.id),
            Entry {
                key: public,
                retires: key.retire_time,
            },
        );
    }
    Ok(known)
}
