//! A connection to a target and the slot it is counted under, which live and end together.

use std::pin::Pin;
use std::time::Duration;

use pgconn::Connection;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::slots::Slot;

/// How long a server has to close a connection that says goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A backend that is ours.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) connection: Connection,
    /// One timer for everything its task waits for. It may fire early, never late.
    pub(crate) timer: Pin<Box<Sleep>>,
    slot: Slot,
}

impl Backend {
    pub(crate) fn new(connection: Connection, slot: Slot) -> Self {
        Self {
            connection,
            timer: Box::pin(sleep_until(Instant::now())),
            slot,
        }
    }

    /// Ends the connection and gives the slot back, once the server has let go.
    pub(crate) async fn close(self) {
        drop(self.hang_up().await);
    }

    /// Ends the connection, once the server has let go, and keeps the slot for another.
    pub(crate) async fn hang_up(self) -> Slot {
        let Self { connection, slot, .. } = self;
        if let Err(error) = connection.terminate(GOODBYE).await {
            tracing::debug!(%error, "a connection did not end as it should");
        }
        slot
    }
}

/// Waits until `deadline`, or less. Setting a timer back is cheap only when it was to fire later, so a timer that would
/// fire earlier is left as it is.
pub(crate) fn wake_at(timer: &mut Pin<Box<Sleep>>, deadline: Instant) -> Pin<&mut Sleep> {
    if timer.is_elapsed() || deadline < timer.deadline() {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut()
}
