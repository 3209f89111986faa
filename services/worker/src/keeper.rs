//! Keeps an operation this worker's while it is carried out: renews the lease, writes progress and log down, hears of a
//! cancellation.
//!
//! Invariant: when the lease cannot be renewed in time the operation is stopped before somebody else can begin it.

use store::operations::{AppendLogError, AttemptError};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::job::Job;
use crate::stop::StopReason;

/// Most bytes of the log in one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Runs until the operation is `over`.
pub(crate) async fn keep(job: &Job<'_>, over: &CancellationToken) {
    let options = &job.context.options;
    let mut ticks = interval(options.keep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let asked = Instant::now();
        if renew(job).await {
            renewed = asked;
        } else if renewed.elapsed() > options.lease * 2 / 3 {
            // Two thirds: ending the program and its backends takes time, too.
            job.stop.stop(StopReason::LeaseLost);
        }
        flush(job).await;
    }
}

/// Renews the lease and writes the progress down. False where the config database did not take it.
pub(crate) async fn renew(job: &Job<'_>) -> bool {
    let (operations, lease) = (job.context.store.operations(), job.context.options.lease);
    match operations
        .heartbeat(&job.attempt, &job.journal.progress(), lease)
        .await
    {
        Ok(heartbeat) => {
            if heartbeat.cancel_requested {
                job.stop.stop(StopReason::Cancelled);
            }
            true
        }
        Err(AttemptError::Superseded) => {
            job.stop.stop(StopReason::LeaseLost);
            true
        }
        Err(AttemptError::Store(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a lease is not renewed");
            false
        }
    }
}

/// Appends to the stored log what is not there yet, as far as the database lets.
pub(crate) async fn flush(job: &Job<'_>) {
    let _turn = job.writing_log.lock().await;
    loop {
        let text = job.journal.take_pending(PIECE_BYTES);
        if text.is_empty() {
            return;
        }
        match job
            .context
            .store
            .operations()
            .append_log(&job.attempt, text.as_bytes())
            .await
        {
            Ok(_) => {}
            // A log is no reason to fail.
            Err(AppendLogError::Full | AppendLogError::Superseded) => {}
            Err(AppendLogError::Store(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a log is not written yet"
                );
                job.journal.put_back(&text);
                return;
            }
        }
    }
}
