//! Waiting for the end of operations, which the config database alone knows.
//!
//! One of the waiting calls looks for all of them, with one query at an interval, and hands the task on when
//! its own wait is over. So the config database is asked twice a second at most, however many wait, and not
//! at all while nobody does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::OperationId;
use parking_lot::Mutex;
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Time between two looks: an end is seen within it.
const INTERVAL: Duration = Duration::from_millis(500);

/// The operations somebody waits for. Cloning it shares it.
#[derive(Debug, Clone)]
pub(crate) struct Waits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// The sender of each operation; its receivers are the waiting calls.
    waited_for: Mutex<HashMap<OperationId, watch::Sender<bool>>>,
    /// Held by the call that looks for all.
    looking: tokio::sync::Mutex<Looks>,
}

#[derive(Debug)]
struct Looks {
    next: Instant,
    healthy: bool,
}

impl Waits {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Inner {
            store,
            waited_for: Mutex::default(),
            looking: tokio::sync::Mutex::new(Looks {
                next: Instant::now(),
                healthy: true,
            }),
        }))
    }

    /// Waits until the operation has ended or is forgotten. The caller bounds the wait. While the config
    /// database is away the wait goes on.
    pub(super) async fn ended(&self, id: OperationId) {
        let mut wait = Wait::begin(&self.0, id);
        let ended = wait.ended.clone();
        tokio::select! {
            biased;
            // The sender stays as long as this wait does.
            _ = wait.ended.wait_for(|ended| *ended) => {}
            () = self.look_until_ended(ended) => {}
        }
    }

    /// Looks for all who wait until `ended` is told.
    async fn look_until_ended(&self, ended: watch::Receiver<bool>) {
        let mut looks = self.0.looking.lock().await;
        while !*ended.borrow() {
            sleep_until(looks.next).await;
            looks.next = Instant::now() + INTERVAL;
            match self.0.look().await {
                Ok(()) => looks.healthy = true,
                Err(error) => {
                    if std::mem::replace(&mut looks.healthy, false) {
                        tracing::warn!(%error, "cannot look for ended operations, their waits go on");
                    }
                }
            }
        }
    }
}

impl Inner {
    /// Asks how all of them stand, and tells those who wait for one that goes on no more.
    async fn look(&self) -> Result<(), StoreError> {
        let ids: Vec<_> = self.waited_for.lock().keys().copied().collect();
        let unfinished = self.store.operations().unfinished(&ids).await?;
        let waited_for = self.waited_for.lock();
        for id in ids.iter().filter(|id| !unfinished.contains(id)) {
            if let Some(sender) = waited_for.get(id) {
                sender.send_replace(true);
            }
        }
        Ok(())
    }
}

/// One call's wait; dropping it ends the wait.
struct Wait {
    waits: Arc<Inner>,
    id: OperationId,
    ended: watch::Receiver<bool>,
}

impl Wait {
    fn begin(waits: &Arc<Inner>, id: OperationId) -> Self {
        let mut waited_for = waits.waited_for.lock();
        let sender = waited_for.entry(id).or_insert_with(|| watch::Sender::new(false));
        Self {
            waits: waits.clone(),
            id,
            ended: sender.subscribe(),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waited_for = self.waits.waited_for.lock();
        // Its own receiver is still there.
        if waited_for
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            waited_for.remove(&self.id);
        }
    }
}
