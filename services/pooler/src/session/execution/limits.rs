//! The times an execution keeps: its statements' limit, heartbeats, and how long events wait to be sent.

use std::time::Duration;

use rpc::query::v1::Heartbeat;
use rpc::query::v1::execution_event::Kind;
use tokio::time::Instant;

use super::{CLOSING, Detaching, Execution, HEARTBEAT, Interrupt, LINGER, Lost, PipeWriter, earliest};

#[derive(Debug)]
pub(super) struct Limits {
    started: Instant,
    /// When a message was sent last.
    sent: Instant,
    /// Since when events wait to be sent.
    pending: Option<Instant>,
    statement: Option<Instant>,
    /// When a backend that is to be closed is given up.
    closing: Option<Instant>,
}

impl Limits {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            sent: now,
            pending: None,
            statement: None,
            closing: None,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn sent(&mut self) {
        self.sent = Instant::now();
        self.pending = None;
    }

    pub(super) fn closing(&mut self) {
        self.closing.get_or_insert(Instant::now() + CLOSING);
    }

    pub(super) fn statement(&mut self, timeout: Option<Duration>) {
        self.statement = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }
}

impl Execution<'_> {
    /// When [`Execution::on_timer`] has something to do, at the latest.
    pub(super) fn next_deadline(&mut self) -> Instant {
        let has_room = self.output.as_ref().is_some_and(PipeWriter::has_room);
        let pending = if has_room && !self.writer.is_empty() {
            Some(*self.limits.pending.get_or_insert_with(Instant::now) + LINGER)
        } else {
            self.limits.pending = None;
            None
        };
        let heartbeat = has_room.then(|| self.limits.sent + HEARTBEAT);
        let statement = self.limits.statement.filter(|_| self.interrupt.is_none());
        let reader = self.reader_deadline();
        earliest([pending, heartbeat, statement, self.limits.closing, reader])
    }

    /// When it is cancelled if no reader comes.
    fn reader_deadline(&self) -> Option<Instant> {
        let Detaching::Cancel { grace } = self.detaching else {
            return None;
        };
        let since = self.output.as_ref()?.detached_since()?;
        since.checked_add(grace).filter(|_| self.interrupt.is_none())
    }

    /// True where nobody came in time to read.
    pub(super) fn reader_is_overdue(&self) -> bool {
        self.reader_deadline().is_some_and(|at| at <= Instant::now())
    }

    /// True where a limit has passed that a server with much to say must not put off.
    pub(super) fn is_overdue(&self) -> bool {
        let statement = self.limits.statement.filter(|_| self.interrupt.is_none());
        let limits = [statement, self.limits.closing, self.reader_deadline()];
        limits
            .into_iter()
            .flatten()
            .min()
            .is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn on_timer(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        if self.limits.closing.is_some_and(|at| at <= now) {
            return Err(Lost::Unresponsive);
        }
        if self.interrupt.is_none() && self.limits.statement.is_some_and(|at| at <= now) {
            self.interrupt(Interrupt::TimedOut);
        }
        if self.reader_is_overdue() {
            self.interrupt(Interrupt::ReaderGone);
        }
        if self.limits.pending.is_some_and(|since| since + LINGER <= now) {
            self.flush();
        }
        let has_room = self.output.as_ref().is_some_and(PipeWriter::has_room);
        if has_room && self.limits.sent + HEARTBEAT <= now {
            let elapsed = prost_types::Duration::try_from(self.limits.elapsed()).ok();
            self.writer.event(Kind::Heartbeat(Heartbeat {
                elapsed,
                queue_position: 0,
            }));
            self.flush();
        }
        Ok(())
    }
}
