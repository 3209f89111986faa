//! What becomes of old logins and keys: forgotten and replaced, by whichever API instance comes first.

use std::sync::Arc;
use std::time::Duration;

use domain::random::Random;
use store::{Store, StoreError};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::login_key_ring::LoginKeyRing;
use crate::logins::{MAX_ACCESS_TOKEN_LIFETIME, THROTTLE};
use crate::signing_key::SigningKey;
use crate::verifier::StartError;

/// How long one of the tasks may take.
const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a key verifies after it was replaced: others sign with it until they look, and what they signed lives for a while.
const OVERLAP: Duration = Duration::from_secs(2 * 60 * 60);

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpkeepOptions {
    /// Time between two rounds. Default: 1 hour.
    pub interval: Duration,
    /// How long one key signs. Default: 30 days.
    pub signing_key_lifetime: Duration,
    /// How long logins are kept that have ended, or whose tokens have all expired. Default: 30 days.
    pub keep_logins: Duration,
    /// How long groups and logins are kept that a provider gave which no instance has in its configuration. Default: 1 day.
    pub keep_unknown_providers: Duration,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            interval: HOUR,
            signing_key_lifetime: 30 * DAY,
            keep_logins: 30 * DAY,
            keep_unknown_providers: DAY,
        }
    }
}

/// Looks after what accumulates. Any number of API instances may: what one has done the others leave.
#[derive(Debug)]
pub struct Upkeep {
    store: Store,
    random: Arc<dyn Random>,
    options: UpkeepOptions,
    login_key: Option<LoginKeyRing>,
    providers: Vec<String>,
}

impl Upkeep {
    /// Upkeep of this database. New signing keys are sealed with the login key, where there is one.
    #[must_use]
    pub fn new(
        store: Store,
        random: Arc<dyn Random>,
        options: UpkeepOptions,
        login_key: Option<LoginKeyRing>,
    ) -> Self {
        Self {
            store,
            random,
            options,
            login_key,
            providers: Vec::new(),
        }
    }

    /// The same where these providers are configured. What others gave ends once no instance has had them for
    /// [`UpkeepOptions::keep_unknown_providers`].
    #[must_use]
    pub fn with_providers(mut self, ids: Vec<String>) -> Self {
        self.providers = ids;
        self
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
        let attempts = async { self.store.login_attempts().prune(Duration::ZERO).await };
        due("forgetting logins under way that nobody ended", attempts).await;
        let logins = async { self.store.logins().prune(self.options.keep_logins).await };
        due("forgetting old logins", logins).await;
        let providers = async {
            let known = self.store.known_providers();
            known.see(&self.providers).await?;
            known.forget(self.options.keep_unknown_providers).await
        };
        due(
            "ending what providers gave that are not configured any more",
            providers,
        )
        .await;
        due("replacing the signing key", self.replace_signing_key()).await;
        // Longer than anything it signed lives.
        let retired = async { self.store.signing_keys().prune(DAY).await };
        due("forgetting retired signing keys", retired).await;
    }

    async fn replace_signing_key(&self) -> Result<u64, StoreError> {
        let new = match SigningKey::generate(&*self.random, self.login_key.as_ref()) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "the signing key is not replaced");
                return Ok(0);
            }
        };
        let keys = self.store.signing_keys();
        // One that we cannot sign with is others' to replace: they could not sign with what we make of it.
        if let Some(key) = keys.current().await?
            && let Err(error) =
                SigningKey::read(key.id, &key.private_key, &key.public_key, self.login_key.as_ref())
        {
            tracing::error!(%error, "the signing key is not replaced");
            return Ok(0);
        }
        let made = keys
            .rotate_if_older(new, self.options.signing_key_lifetime, OVERLAP)
            .await?;
        Ok(u64::from(made.is_some()))
    }
}

/// Makes another key the one that signs, at once, sealed where there is a login key.
///
/// # Errors
/// Where the config database fails.
pub async fn replace_signing_key(
    store: &Store,
    random: &dyn Random,
    login_key: Option<&LoginKeyRing>,
) -> Result<(), StartError> {
    let new = SigningKey::generate(random, login_key)?;
    store.signing_keys().rotate(new, OVERLAP).await?;
    Ok(())
}

async fn due(what: &'static str, task: impl Future<Output = Result<u64, StoreError>>) {
    match timeout(DEADLINE, task).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::info!(count, "{what}"),
        Ok(Err(error)) => tracing::warn!(%error, "{what} failed"),
        Err(_) => tracing::warn!("{what} took too long"),
    }
}
