//! An operation ends when what its owner could ask for it by does: a role, a grant, a policy, their account.
//!
//! Invariant: with the config database there, it is known within seconds; while it is away, what was known stays good.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Standing};
use crate::job::Job;
use crate::stop::StopReason;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer of the config database is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs until the operation is `over`.
pub(crate) async fn uphold(job: &Job<'_>, over: &CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whoever begins looks anyway.
    ticks.reset();
    loop {
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(stands) = over.run_until_cancelled(stands(job)).await else {
            return;
        };
        if !stands {
            job.stop.stop(StopReason::AccessRevoked);
            return;
        }
    }
}

/// Whether the owner may still have it done, as far as is known.
pub(crate) async fn stands(job: &Job<'_>) -> bool {
    let asked = Box::pin(admission::standing(&job.context.store, &job.operation));
    match timeout(PATIENCE, asked).await {
        Ok(Ok(Standing::Allowed)) => true,
        Ok(Ok(Standing::Refused(failure))) => {
            job.journal.line(&format!("pgmoor: {}", failure.message));
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the rights of an operation's owner cannot be read; what was known stays good"
            );
            true
        }
        Err(_) => true,
    }
}
