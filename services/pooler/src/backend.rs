//! A connection to a target and the slot it is counted under, which live and end together.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::access::Access;
use pgconn::Connection;
use store::succession::Connection as Recorded;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::facts::XactFacts;
use crate::hold::Hold;
use crate::look::Baseline;
use crate::pools::Pool;
use crate::recorder::{Entry, Recorder};
use crate::roster::{Listed, Listing, Use};
use crate::session::Suspended;
use crate::slots::Slot;

/// How long a server has to close a connection that says goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a cancel request may take to leave.
const CANCEL: Duration = Duration::from_secs(10);

/// A backend that is ours.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) connection: Connection,
    /// One timer for everything its task waits for. It may fire early, never late.
    pub(crate) timer: Pin<Box<Sleep>>,
    /// What holds its session here.
    pub(crate) hold: Hold,
    /// The execution whose portal is open here. Nothing may be sent meanwhile that does not go on with it or close it.
    pub(crate) suspended: Option<Suspended>,
    /// Its open transaction block was begun by the user. In a read-only session it may be ours.
    pub(crate) users_block: bool,
    /// What its session might do when it used it last.
    pub(crate) access: Access,
    /// Who it was when it was new.
    pub(crate) baseline: Baseline,
    /// What it may be asked before a COMMIT.
    pub(crate) xact_facts: XactFacts,
    /// When its lifetime is over; nothing for one without.
    pub(crate) retires: Option<Instant>,
    /// The pool it belongs to, which is known as long as it has a backend.
    pub(crate) pool: Option<Arc<Pool>>,
    /// Where others can read of it. Ends with the slot.
    entry: Option<Entry>,
    /// Where others see it; nothing while it is being made.
    listed: Option<Listed>,
    slot: Slot,
    tasks: TaskTracker,
}

impl Backend {
    /// A backend, kept for life until somebody says otherwise, whose last moments `tasks` keeps track of.
    pub(crate) fn new(connection: Connection, slot: Slot, tasks: TaskTracker) -> Self {
        Self {
            connection,
            timer: Box::pin(sleep_until(Instant::now())),
            hold: Hold::for_life(),
            suspended: None,
            users_block: false,
            access: Access::ReadWrite,
            baseline: Baseline::default(),
            xact_facts: XactFacts::default(),
            retires: None,
            pool: None,
            entry: None,
            listed: None,
            slot,
            tasks,
        }
    }

    /// Shows it to others from now on.
    pub(crate) fn list(&mut self, listed: Listed) {
        let process_id = self.connection.process_id().unwrap_or_default();
        listed.connected(process_id, self.connection.address());
        self.listed = Some(listed);
    }

    /// As others see it.
    pub(crate) fn listing(&self) -> Option<&Listing> {
        self.listed.as_deref()
    }

    /// Says what it is for from now on.
    pub(crate) fn set_use(&self, used_for: Use) {
        if let Some(listing) = self.listing() {
            listing.set_use(used_for);
        }
    }

    /// True once it is to be closed, whoever has it.
    pub(crate) fn is_killed(&self) -> bool {
        self.listing().is_some_and(Listing::is_killed)
    }

    /// Asks the server once to stop what it runs, where nobody can wait. Nothing may follow but the end.
    pub(crate) fn cancel_unseen(&self) {
        let Some(key) = self.connection.cancel_key().cloned() else {
            return;
        };
        let target = self.connection.cancel_target().clone();
        self.tasks.spawn(async move {
            if let Err(error) = key.send(&target, CANCEL).await {
                tracing::debug!(%error, "a cancel request failed");
            }
        });
    }

    /// What it is counted under.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Writes it down: from then on another connection may be opened.
    pub(crate) fn record(&mut self, recorder: &Arc<Recorder>, connection: Recorded) {
        if let Some(permit) = self.slot.lands() {
            self.entry = Some(recorder.opened(connection, permit));
        }
    }

    /// Counts it under another slot. The one before must hold nothing any more.
    pub(crate) fn count_under(&mut self, slot: Slot) {
        self.slot = slot;
    }

    /// True once its lifetime is over, or somebody wants it replaced.
    pub(crate) fn is_old(&self) -> bool {
        self.retires.is_some_and(|at| at <= Instant::now())
            || self.listing().is_some_and(Listing::is_close_needed)
    }

    /// True while the connection stands, as far as what has arrived tells. Ask of one that nobody listened to for a while.
    pub(crate) fn is_alive(&mut self) -> bool {
        loop {
            match self.connection.try_next() {
                Ok(None) => return true,
                // A fatal error is followed by the end.
                Ok(Some(_)) => {}
                Err(_) => return false,
            }
        }
    }

    /// Ends the connection. The slot is given back when the server has let go, and not before: a backend in a statement
    /// that cannot be cancelled counts as long as it is there. The caller waits only so long.
    pub(crate) async fn close(self) {
        let Self {
            connection,
            entry,
            listed,
            slot,
            tasks,
            ..
        } = self;
        if let Some(listing) = listed.as_deref() {
            listing.set_use(Use::Closing);
        }
        let gone = tasks.spawn(async move {
            connection.gone().await;
            drop((slot, entry, listed));
        });
        if timeout(GOODBYE, gone).await.is_err() {
            tracing::warn!("a backend does not end and keeps its slot");
        }
    }

    /// As [`Backend::close`], where nobody can wait.
    pub(crate) fn close_unseen(self) {
        let tasks = self.tasks.clone();
        tasks.spawn(self.close());
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

/// A backend on its way to somebody. If nobody takes it, it is closed as it should be: its slot is given back when the
/// server has let go.
#[derive(Debug)]
pub(crate) struct Untaken(Option<Box<Backend>>);

impl Untaken {
    pub(crate) fn new(backend: Backend) -> Self {
        Self(Some(Box::new(backend)))
    }

    /// The backend, to use while it is on its way.
    pub(crate) fn connection(&mut self) -> Option<&mut Connection> {
        self.0.as_mut().map(|backend| &mut backend.connection)
    }

    /// Takes it.
    #[allow(clippy::expect_used, reason = "taken once, by value")]
    pub(crate) fn take(mut self) -> Backend {
        *self.0.take().expect("a backend that nobody took")
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        if let Some(backend) = self.0.take() {
            backend.close_unseen();
        }
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
