//! What becomes of old logins and keys: forgotten and replaced, by whichever API instance comes first.

use std::sync::Arc;
use std::time::Duration;

use domain::random::Random;
use store::{Store, StoreError};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::logins::{MAX_ACCESS_TOKEN_LIFETIME, THROTTLE};
use crate::signing_key::SigningKey;

/// How long one of the tasks may take.
const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpkeepOptions {
    /// Time between two rounds. Default: 1 hour.
    pub interval: Duration,
    /// How long one key signs. Default: 30 days.
    pub signing_key_lifetime: Duration,
    /// How long logins are kept that have ended, or whose tokens have all expired. Default: 30 days.
    pub keep_logins: Duration,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            interval: HOUR,
            signing_key_lifetime: 30 * DAY,
            keep_logins: 30 * DAY,
        }
    }
}

/// Looks after what accumulates. Any number of API instances may: what one has done the others leave.
#[derive(Debug)]
pub struct Upkeep {
    store: Store,
    random: Arc<dyn Random>,
    options: UpkeepOptions,
}

impl Upkeep {
    /// Upkeep of this database.
    #[must_use]
    pub fn new(store: Store, random: Arc<dyn Random>, options: UpkeepOptions) -> Self {
        Self {
            store,
            random,
            options,
        }
    }

    /// A round now and one every interval, until it is cancelled. What fails is logged and tried in the next.
    pub async fn run(self, cancelled: CancellationToken) {
        let rounds = async {
            let mut ticks = interval(self.options.interval.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                Box::pin(self.round()).await;
            }
        };
        let _: Option<()> = cancelled.run_until_cancelled(rounds).await;
    }

    /// Does what is due.
    pub async fn round(&self) {
        let revocations = async {
            self.store
                .prune_revocations(MAX_ACCESS_TOKEN_LIFETIME + DAY)
                .await
        };
        due("forgetting old revocations", revocations).await;
        let throttles = async { self.store.login_throttles().prune(THROTTLE.window * 2).await };
        due("forgetting old attempts to log in", throttles).await;
        let logins = async { self.store.logins().prune(self.options.keep_logins).await };
        due("forgetting old logins", logins).await;
        due("replacing the signing key", self.replace_signing_key()).await;
        // Longer than anything it signed lives.
        let retired = async { self.store.signing_keys().prune(DAY).await };
        due("forgetting retired signing keys", retired).await;
    }

    async fn replace_signing_key(&self) -> Result<u64, StoreError> {
        let new = SigningKey::generate(&*self.random);
        // Others sign with the old key until they look, and what they signed lives for a while.
        let overlap = MAX_ACCESS_TOKEN_LIFETIME + HOUR;
        let keys = self.store.signing_keys();
        let made = keys
            .rotate_if_older(new, self.options.signing_key_lifetime, overlap)
            .await?;
        Ok(u64::from(made.is_some()))
    }
}

async fn due(what: &'static str, task: impl Future<Output = Result<u64, StoreError>>) {
    match timeout(DEADLINE, task).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::info!(count, "{what}"),
        Ok(Err(error)) => tracing::warn!(%error, "{what} failed"),
        Err(_) => tracing::warn!("{what} took too long"),
    }
}
