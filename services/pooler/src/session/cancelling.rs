//! Cancels what a backend runs, again and again until it is ready.
//!
//! PostgreSQL ignores a request that arrives before the statement does, so one may be lost; and one that is under way
//! when the statement ends would hit the next. So requests are repeated, and the backend is given nothing before the
//! server has closed the socket of each (PostgreSQL manual, "Canceling Requests in Progress").

use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt as _;
use pgconn::{CancelError, CancelKey, CancelTarget};
use tokio::time::{Instant, sleep_until};

const WITHIN: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

type Sending = Pin<Box<dyn Future<Output = Result<(), CancelError>> + Send>>;

enum Step {
    Sending(Sending),
    Pausing(Instant),
}

/// A cancellation under way.
pub(crate) struct Cancelling {
    key: CancelKey,
    target: CancelTarget,
    step: Step,
    pause: Duration,
    in_doubt: bool,
}

impl Cancelling {
    /// Prepares the first request; it leaves when [`Cancelling::drive`] is polled.
    pub(crate) fn new(key: CancelKey, target: CancelTarget) -> Self {
        let step = Step::Sending(send(&key, &target));
        Self {
            key,
            target,
            step,
            pause: FIRST_PAUSE,
            in_doubt: false,
        }
    }

    /// Sends requests for ever. Cancel-safe.
    pub(crate) async fn drive(&mut self) -> std::convert::Infallible {
        loop {
            match &mut self.step {
                Step::Sending(sending) => {
                    let sent = sending.as_mut().await;
                    self.note(&sent);
                    self.step = Step::Pausing(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Step::Pausing(until) => {
                    sleep_until(*until).await;
                    self.step = Step::Sending(send(&self.key, &self.target));
                }
            }
        }
    }

    /// Waits until no request is under way. False where one may still strike at any time: the backend must not be given
    /// anything more.
    pub(crate) async fn settle(mut self) -> bool {
        if let Step::Sending(sending) = &mut self.step {
            let sent = sending.as_mut().await;
            self.note(&sent);
        }
        !self.in_doubt
    }

    fn note(&mut self, sent: &Result<(), CancelError>) {
        match sent {
            Ok(()) | Err(CancelError::Connect(_) | CancelError::Timeout { sent: false }) => {}
            Err(CancelError::Timeout { sent: true } | CancelError::Io(_)) => self.in_doubt = true,
        }
        if let Err(error) = sent {
            tracing::warn!(%error, "a cancel request failed");
        }
    }
}

fn send(key: &CancelKey, target: &CancelTarget) -> Sending {
    let (key, target) = (key.clone(), target.clone());
    async move { key.send(&target, WITHIN).await }.boxed()
}
