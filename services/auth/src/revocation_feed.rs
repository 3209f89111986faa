//! The task that keeps a [`TokenVerifier`] up to date.
//!
//! Invariant: with an interval of a second, what ends a user, a login or a token is known here within 5 s,
//! unless the config database is away.

use std::sync::Arc;
use std::time::Duration;

use store::StoreError;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::verifier::TokenVerifier;

/// How long an answer is waited for.
const DEADLINE: Duration = Duration::from_secs(3);
/// How often the keys are read anew.
const KEYS_EVERY: Duration = Duration::from_secs(15);
/// How often it is written down which API tokens were used.
const USE_EVERY: Duration = Duration::from_secs(30);

/// Asks the config database again and again what was revoked, and whether the rules changed: one small query.
#[derive(Debug)]
pub struct RevocationFeed {
    verifier: Arc<TokenVerifier>,
    interval: Duration,
}

impl RevocationFeed {
    /// A feed that asks every `interval`; a second is meant.
    #[must_use]
    pub fn new(verifier: Arc<TokenVerifier>, interval: Duration) -> Self {
        Self {
            verifier,
            interval: interval.max(Duration::from_millis(1)),
        }
    }

    /// Asks until it is cancelled, and then writes down what is to be kept. Errors are logged when they
    /// begin, and again when they are over.
    pub async fn run(self, cancelled: CancellationToken) {
        let _ = cancelled.run_until_cancelled(self.follow()).await;
        self.note_use().await;
    }

    async fn follow(&self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = Log::default();
        let (mut keys_read, mut use_noted) = (Instant::now(), Instant::now());
        loop {
            ticks.tick().await;
            match timeout(DEADLINE, self.verifier.hear()).await {
                Ok(heard) => log.note(heard),
                Err(_) => {
                    self.verifier.set_deaf();
                    log.failed("no answer within the deadline");
                    continue;
                }
            }
            let refreshed = timeout(DEADLINE, self.verifier.refresh_users()).await;
            warn_of(refreshed, "reading users anew");
            if keys_read.elapsed() >= KEYS_EVERY {
                keys_read = Instant::now();
                let read = timeout(DEADLINE, self.verifier.refresh_keys()).await;
                warn_of(read, "reading the signing keys");
            }
            if use_noted.elapsed() >= USE_EVERY {
                use_noted = Instant::now();
                self.note_use().await;
            }
        }
    }

    async fn note_use(&self) {
        let noted = timeout(DEADLINE, self.verifier.note_use()).await;
        warn_of(noted, "noting the use of api tokens");
    }
}

fn warn_of(outcome: Result<Result<(), StoreError>, tokio::time::error::Elapsed>, doing: &str) {
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "{doing} failed"),
        Err(_) => tracing::warn!("{doing} took too long"),
    }
}

/// Says once that it fails and once that it works again.
#[derive(Debug, Default)]
struct Log {
    failing_since: Option<Instant>,
}

impl Log {
    fn note(&mut self, heard: Result<(), StoreError>) {
        match heard {
            Ok(()) => {
                if let Some(since) = self.failing_since.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(outage_s = seconds, "revocations can be read again");
                }
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn failed(&mut self, error: &str) {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(
                error,
                "revocations cannot be read; known tokens stay good until they expire"
            );
        }
    }
}
