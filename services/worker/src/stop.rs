//! Why an operation is to stop before its end, and waiting for that.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why an operation stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Somebody asked for it.
    Cancelled,
    /// What its owner could ask for it by was taken away.
    AccessRevoked,
    /// The lease could not be renewed in time: another worker may have the operation by now.
    LeaseLost,
    /// This worker ends and the time to drain is over.
    Shutdown,
}

/// The operation was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted(pub(crate) StopReason);

/// Tells one operation to stop. The first reason stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl Stop {
    pub(crate) fn stop(&self, reason: StopReason) {
        // A second reason changes nothing.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Runs `work` unless and until the operation is stopped; then `work` is dropped.
    pub(crate) async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.interrupted()),
            done = work => Ok(done),
        }
    }

    /// True while the operation holds on to it.
    pub(crate) fn is_alive(&self) -> bool {
        Arc::strong_count(&self.reason) > 1
    }

    fn interrupted(&self) -> Interrupted {
        Interrupted(self.reason.get().copied().unwrap_or(StopReason::Shutdown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_reason_stands_and_work_is_dropped() {
        let stop = Stop::default();
        assert_eq!(stop.guard(async { 1 }).await, Ok(1));
        stop.stop(StopReason::Cancelled);
        stop.stop(StopReason::Shutdown);
        let interrupted = stop.guard(std::future::pending::<()>()).await;
        assert_eq!(interrupted, Err(Interrupted(StopReason::Cancelled)));
    }
}
