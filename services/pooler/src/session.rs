//! A query session: who owns it, how it stands, and the work it is given. Its task, in [`task`], holds the backend.
//!
//! Invariant: a session runs one thing at a time. Work is accepted, and a cancellation bound to it, under one lock, so
//! that neither can hit something else.

mod cancelling;
mod commit;
mod control;
mod copy_source;
mod elevation;
mod execution;
mod home;
mod moving;
mod pipe;
mod record;
mod state;
mod suspended;
mod task;
mod transcript;
mod view;
mod watchers;
mod work;
mod written;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use domain::access::Access;
use domain::clock::Clock;
use domain::id::{ExecutionId, UserId};
use domain::limits::Limit;
use domain::name::Identifier;
use domain::pin::{Pin, Pins};
use domain::session::{ExecutionName, SessionName};
use parking_lot::{Mutex, MutexGuard};
use rpc::query;
use rpc::query::v1::{
    CommitOutcome, ExecutionOutcome, PinReason, SessionMode, SessionState, TransactionStatus,
    WatchSessionResponse,
};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::commit::{Commit, Known, Transaction};
pub(crate) use self::control::Control;
pub(crate) use self::copy_source::{CopySender, CopySource, copy_channel};
pub(crate) use self::execution::{Ended, Execution, Identity, LastEvents, Lost, Plan, PortalUse, Suspended};
pub(crate) use self::home::Home;
pub(crate) use self::pipe::{Audience, Detaching, PipeReader, PipeWriter, Recording, pipe};
pub(crate) use self::record::LastExecution;
use self::record::{Record, ShortError};
use self::state::{Portal, State, Written};
pub(crate) use self::task::{run, run_shared};
pub(crate) use self::transcript::Numbered;
pub(crate) use self::view::{Activity, View};
use self::watchers::Watchers;
pub(crate) use self::work::Work;
use crate::backend::Backend;
use crate::error::{Loss, LossCause, PoolerError};
use crate::inspection::Known as KnownRole;
use crate::instances::Instance;
use crate::ledger::Ticket;
use crate::pools::Pool;
use crate::rights::Rights;
use crate::slots::Slots;
use crate::timestamp::timestamp;

/// The contract's word for a transaction's status.
pub(crate) fn transaction_status(status: pgconn::TransactionStatus) -> TransactionStatus {
    match status {
        pgconn::TransactionStatus::Idle => TransactionStatus::Idle,
        pgconn::TransactionStatus::InTransaction => TransactionStatus::InTransaction,
        pgconn::TransactionStatus::Failed => TransactionStatus::Failed,
    }
}

/// The contract's words for pins.
pub(crate) fn pin_reasons(pins: Pins) -> Vec<i32> {
    let reason = |pin| match pin {
        Pin::Mode => PinReason::Mode,
        Pin::Transaction => PinReason::Transaction,
        Pin::Portal => PinReason::Portal,
        Pin::Copy => PinReason::Copy,
        Pin::Setting => PinReason::Setting,
        Pin::Role => PinReason::Role,
        Pin::TempTable => PinReason::TempTable,
        Pin::AdvisoryLock => PinReason::AdvisoryLock,
        Pin::Listen => PinReason::Listen,
        Pin::HoldCursor => PinReason::HoldCursor,
        Pin::Prepared => PinReason::Prepared,
        Pin::Sticky => PinReason::Sticky,
    };
    pins.iter().map(|pin| reason(pin).into()).collect()
}

/// What never changes about a session.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: SessionName,
    /// The script it was made for and ends with. Nobody else sees such a session.
    pub(crate) script: Option<ExecutionId>,
    pub(crate) owner: UserId,
    /// What lets the owner use the server, and how far.
    pub(crate) rights: Arc<Rights>,
    pub(crate) keeping: Keeping,
    /// Whose limits hold for it.
    pub(crate) instance: Arc<Instance>,
    pub(crate) create_time: OffsetDateTime,
    pub(crate) idle_timeout: Duration,
    pub(crate) idle_in_transaction_timeout: Duration,
}

/// How a session comes by its backend.
#[derive(Debug, Clone)]
pub(crate) enum Keeping {
    /// It has one for life.
    Pinned {
        database: Identifier,
        username: Identifier,
        backend_pid: i32,
        /// What is known of its role, where it only reads.
        role: Option<Arc<KnownRole>>,
    },
    /// It takes one of the pool it lives in when it needs one.
    Auto { home: Home, queue_timeout: Duration },
}

/// A session as everybody but its task sees it.
pub(crate) struct Session {
    pub(crate) facts: Facts,
    control: Control,
    state: Mutex<State>,
    /// Who follows its notifications.
    watchers: Watchers,
    ended: CancellationToken,
    /// Rung when it is decided whether it moves to another pooler.
    settled: Notify,
    clock: Arc<dyn Clock>,
}

/// What happened to a session before it came here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// Counts from 1 how often it was recovered.
    pub(crate) incarnation: i64,
    /// Nobody was told of the last time.
    pub(crate) untold: bool,
    /// What its last execution was asked for with.
    pub(crate) request: Option<Uuid>,
}

impl Recovery {
    const NONE: Self = Self {
        incarnation: 1,
        untold: false,
        request: None,
    };
}

/// A backend of a shared pool and the instance whose it is.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) backend: Backend,
    pub(crate) instance: Arc<Instance>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Whether somebody has to serve a session that was given something to do.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Its task will see to it.
    Nothing,
    /// A task is to be started.
    Task,
}

/// What came of a wish that may have been uttered before.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// It begins.
    Now(Needs),
    /// It was, as the session's last execution; of which nothing is known where that was at another pooler.
    Before(Option<ExecutionId>),
}

impl Session {
    /// A session that begins now, outside a transaction.
    pub(crate) fn new(facts: Facts, clock: Arc<dyn Clock>) -> Self {
        Self::recovered(facts, Recovery::NONE, clock)
    }

    /// A session that goes on here, outside a transaction.
    pub(crate) fn recovered(facts: Facts, recovery: Recovery, clock: Arc<dyn Clock>) -> Self {
        let (served, pins, backend_pid) = match &facts.keeping {
            Keeping::Pinned { backend_pid, .. } => (true, Pins::NONE.with(Pin::Mode), *backend_pid),
            Keeping::Auto { .. } => (false, Pins::NONE, 0),
        };
        let state = State {
            served,
            busy: None,
            work: None,
            end: None,
            suspended: None,
            transaction: TransactionStatus::Idle,
            transaction_since: None,
            pins,
            backend_pid,
            incarnation: recovery.incarnation,
            untold: recovery.untold,
            fell: false,
            falls: false,
            discards: false,
            moving: false,
            written: Written {
                pins,
                incarnation: recovery.incarnation,
                untold: recovery.untold,
            },
            pins_since: Instant::now(),
            returned: None,
            rests_at: None,
            waits_for: None,
            waits_since: None,
            last_use: Instant::now(),
            last_use_time: clock.now(),
            record: None,
            request: recovery.request,
        };
        Self {
            facts,
            control: Control::default(),
            state: Mutex::new(state),
            watchers: Watchers::default(),
            ended: CancellationToken::new(),
            settled: Notify::new(),
            clock,
        }
    }

    /// What its connection is told its owner as.
    pub(crate) fn holder(&self) -> String {
        let name = self.facts.name;
        match self.facts.script {
            Some(script) => format!("servers/{}/scripts/{script}", name.server),
            None => name.to_string(),
        }
    }

    /// The pool it lives in, if it shares backends.
    pub(crate) fn pool(&self) -> Option<Arc<Pool>> {
        match &self.facts.keeping {
            Keeping::Auto { home, .. } => Some(home.pool()),
            Keeping::Pinned { .. } => None,
        }
    }

    /// The database it is in, and the PostgreSQL role it logs in as.
    pub(crate) fn database_and_role(&self) -> (Identifier, Identifier) {
        match &self.facts.keeping {
            Keeping::Pinned {
                database, username, ..
            } => (database.clone(), username.clone()),
            Keeping::Auto { home, .. } => {
                let pool = home.pool();
                (pool.key.database.clone(), pool.key.username.clone())
            }
        }
    }

    /// What is known of its role, where it only reads.
    fn known_role(&self) -> Option<Arc<KnownRole>> {
        match &self.facts.keeping {
            Keeping::Pinned { role, .. } => role.clone(),
            Keeping::Auto { home, .. } => home.role(),
        }
    }

    /// Counts how often it was recovered, from 1.
    pub(crate) fn incarnation(&self) -> i64 {
        self.state.lock().incarnation
    }

    /// A pipe whose reader this session's task heeds. Where it is `kept`, others may read what one reader has read.
    /// What it carries comes after the event of that number.
    pub(crate) fn pipe(&self, kept: bool, after: i64) -> (PipeWriter, PipeReader) {
        pipe(Arc::clone(&self.control.bell), kept, after)
    }

    /// Gives it something to do, unless it was asked for that already; see [`Session::start`].
    pub(crate) fn start_once(
        &self,
        execution: ExecutionId,
        work: Work,
        incarnation: i64,
        request: Option<Uuid>,
    ) -> Result<Started, PoolerError> {
        let state = self.state.lock();
        state.alive()?;
        if request.is_some() && state.request == request {
            let record = state.record.as_ref();
            return Ok(Started::Before(record.map(|record| record.id)));
        }
        let needs = self.start_locked(state, execution, work, incarnation, request, |_| true)?;
        Ok(Started::Now(needs))
    }

    /// Gives it something to do, if `allowed` says so of its transaction. `incarnation` is the one the caller knows, 0 for
    /// callers who do not follow it.
    pub(crate) fn start(
        &self,
        execution: ExecutionId,
        work: Work,
        incarnation: i64,
        allowed: impl FnOnce(TransactionStatus) -> bool,
    ) -> Result<Needs, PoolerError> {
        let state = self.state.lock();
        self.start_locked(state, execution, work, incarnation, None, allowed)
    }

    fn start_locked(
        &self,
        mut state: MutexGuard<'_, State>,
        execution: ExecutionId,
        work: Work,
        incarnation: i64,
        request: Option<Uuid>,
        allowed: impl FnOnce(TransactionStatus) -> bool,
    ) -> Result<Needs, PoolerError> {
        state.alive()?;
        if state.moving {
            return Err(PoolerError::Moved { owner: None });
        }
        if state.busy.is_some() {
            return Err(PoolerError::SessionBusy);
        }
        state.tell_incarnation(incarnation)?;
        if !allowed(state.transaction) {
            return Err(PoolerError::TransactionState {
                status: state.transaction,
            });
        }
        state.touch(self.clock.now());
        state.busy = Some(execution);
        state.request = request;
        // Its portal is closed before anything else runs.
        state.suspended = None;
        state.record = Some(Record {
            id: execution,
            start_time: state.last_use_time,
            end_time: None,
            outcome: ExecutionOutcome::Unspecified,
            rows: 0,
            error: None,
            commit: None,
        });
        state.work = Some(work);
        self.control.reset();
        Ok(self.call(state))
    }

    /// Has its task look at what changed.
    fn call(&self, mut state: MutexGuard<'_, State>) -> Needs {
        let served = std::mem::replace(&mut state.served, true);
        drop(state);
        self.control.bell.notify_one();
        if served { Needs::Nothing } else { Needs::Task }
    }

    /// Cancels that execution and no other.
    pub(crate) fn cancel(&self, execution: ExecutionId) -> Result<(), PoolerError> {
        let state = self.state.lock();
        state.alive()?;
        let known = state.record.as_ref().is_some_and(|record| record.id == execution);
        if !known {
            let name = ExecutionName {
                session: self.facts.name,
                execution,
            };
            return Err(PoolerError::NotFound {
                resource: name.to_string(),
            });
        }
        if state.busy != Some(execution) {
            return Err(PoolerError::ExecutionFinished);
        }
        // Under the lock: the execution cannot end, nor another begin, before the flag is up.
        self.control.cancel();
        Ok(())
    }

    /// Follows its notifications from now on, to its end.
    pub(crate) fn watch(&self) -> Result<Receiver<WatchSessionResponse>, PoolerError> {
        let state = self.state.lock();
        state.alive()?;
        Ok(self.watchers.watch())
    }

    /// Puts off the idle limit.
    pub(crate) fn keep_alive(&self) -> Result<(), PoolerError> {
        let mut state = self.state.lock();
        state.alive()?;
        state.touch(self.clock.now());
        Ok(())
    }

    /// Waits until the backend is gone.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends the session for `cause`, unless it ends already.
    pub(crate) fn begin_close(&self, cause: LossCause) -> Needs {
        let mut state = self.state.lock();
        state.end_for(cause);
        self.control.close();
        self.call(state)
    }

    /// The session as clients see it.
    pub(crate) fn describe(&self) -> Result<query::v1::Session, PoolerError> {
        let state = self.state.lock();
        state.alive()?;
        let name = |execution| {
            ExecutionName {
                session: self.facts.name,
                execution,
            }
            .to_string()
        };
        let expire = (
            state.last_use_time + self.idle_limit(&state).1,
            state.busy.is_none(),
        );
        let mode = match &self.facts.keeping {
            Keeping::Pinned { .. } => SessionMode::Pinned,
            Keeping::Auto { .. } => SessionMode::Auto,
        };
        let (database, username) = self.database_and_role();
        let waits_for = state.waits_for.as_ref();
        let queue_position = waits_for.and_then(|(slots, ticket)| slots.position(*ticket));
        Ok(query::v1::Session {
            name: self.facts.name.to_string(),
            database: database.to_string(),
            username: username.to_string(),
            mode: mode.into(),
            state: match (state.busy, queue_position) {
                (None, _) => SessionState::Idle,
                (Some(_), None) => SessionState::Busy,
                (Some(_), Some(_)) => SessionState::Waiting,
            }
            .into(),
            queue_position: queue_position.map_or(0, |position| i32::try_from(position).unwrap_or(i32::MAX)),
            transaction_status: state.transaction.into(),
            pins: pin_reasons(state.pins),
            backend_pid: state.backend_pid,
            incarnation: state.incarnation,
            owner: format!("users/{}", self.facts.owner),
            create_time: Some(timestamp(self.facts.create_time)),
            last_use_time: Some(timestamp(state.last_use_time)),
            // A session that works is not idle, however long it takes.
            expire_time: expire.1.then(|| timestamp(expire.0)),
            execution: state.busy.map(name).unwrap_or_default(),
            access: match self.facts.rights.access() {
                Access::ReadOnly => query::v1::SessionAccess::ReadOnly,
                Access::ReadWrite => query::v1::SessionAccess::ReadWrite,
            }
            .into(),
            enforcement: self
                .known_role()
                .filter(|_| self.facts.rights.access() == Access::ReadOnly)
                .map(|role| role.read_only()),
            policy_revision: self.facts.rights.revision(),
            elevated_until: self
                .facts
                .rights
                .elevated()
                .map(|elevated| timestamp(elevated.until)),
        })
    }

    /// The last execution, also once the session ends; nothing where it had none.
    pub(crate) fn last_execution(&self) -> Option<LastExecution> {
        let state = self.state.lock();
        let mut record = state.record.clone()?;
        if record.end_time.is_none() {
            record.rows = self.control.rows();
            record.commit = self.control.commit();
        }
        Some(LastExecution {
            suspended: state
                .suspended
                .is_some_and(|portal| portal.execution == record.id),
            record,
            transaction: state.transaction,
        })
    }

    /// Notes what the server said of a transaction that an execution was to commit.
    pub(crate) fn settle(&self, execution: ExecutionId, xid: NonZeroU64, outcome: CommitOutcome) {
        let mut state = self.state.lock();
        let record = state.record.as_mut().filter(|record| record.id == execution);
        if let Some(commit) = record.and_then(|record| record.commit.as_mut()) {
            commit.settle(xid, outcome);
        }
    }

    /// How long it may be idle as it stands, and why it ends then.
    fn idle_limit(&self, state: &State) -> (LossCause, Duration) {
        let limits = self.facts.rights.narrow(self.facts.instance.limits());
        let idle = self.facts.idle_timeout.min(limits.time(Limit::ClientIdleTimeout));
        let mut first = (LossCause::IdleTimeout, idle);
        let mut or = |cause, limit: Option<Duration>| {
            if let Some(limit) = limit.filter(|limit| *limit < first.1) {
                first = (cause, limit);
            }
        };
        if let Some(since) = state.transaction_since {
            let in_transaction = self.facts.idle_in_transaction_timeout;
            let in_transaction = in_transaction.min(limits.time(Limit::IdleTransactionTimeout));
            or(LossCause::IdleInTransactionTimeout, Some(in_transaction));
            let whole = limits.time_if_any(Limit::TransactionTimeout);
            let passed = state.last_use.saturating_duration_since(since);
            or(
                LossCause::TransactionTimeout,
                whole.map(|whole| whole.saturating_sub(passed)),
            );
        } else if self.pool().is_some() && !state.pins.is_empty() {
            or(
                LossCause::PinnedIdleTimeout,
                limits.time_if_any(Limit::PinnedIdleTimeout),
            );
        }
        first
    }

    // For its task.

    fn take_work(&self) -> Option<(ExecutionId, Work)> {
        let mut state = self.state.lock();
        // Not on a backend that is to be closed first.
        if state.discards {
            return None;
        }
        let mut work = state.work.take()?;
        let limits = self.facts.rights.narrow(self.facts.instance.limits());
        work.limit(
            limits.time_if_any(Limit::QueryTimeout),
            limits.time_if_any(Limit::TransactionTimeout),
            state.transaction_since,
        );
        work.narrow(&self.facts.rights.limits());
        state.busy.map(|execution| (execution, work))
    }

    /// When it expires if nothing happens.
    fn idle_deadline(&self) -> Instant {
        let state = self.state.lock();
        state.last_use + self.idle_limit(&state).1
    }

    /// Ends it if it has expired.
    pub(crate) fn expire(&self) -> Needs {
        let mut state = self.state.lock();
        let (cause, limit) = self.idle_limit(&state);
        if state.busy.is_some() || state.end.is_some() || state.last_use + limit > Instant::now() {
            return Needs::Nothing;
        }
        state.end_for(cause);
        self.call(state)
    }

    /// What lets it take up a backend that is ready for it: one that was given back.
    pub(crate) fn take_returned(&self) -> Option<Seat> {
        self.state.lock().returned.take()
    }

    /// Gives its backend back to it, because state of the session was found there. A session that ends does not want it.
    pub(crate) fn give_back(&self, seat: Seat) -> Result<Needs, Box<Seat>> {
        let mut state = self.state.lock();
        if state.end.is_some() || !self.takes_back(&mut state, seat.backend.access) {
            return Err(Box::new(seat));
        }
        state.set_pins(seat.backend.hold.pins());
        // It is pinned from now on, and so is the time it may be idle.
        state.last_use = Instant::now();
        state.backend_pid = seat.backend.connection.process_id().unwrap_or_default();
        state.returned = Some(seat);
        Ok(self.call(state))
    }

    /// Where to look for the backend it used last.
    pub(crate) fn rests_at(&self) -> Option<Arc<Instance>> {
        self.state.lock().rests_at.clone()
    }

    pub(crate) fn set_rests_at(&self, instance: Option<Arc<Instance>>) {
        self.state.lock().rests_at = instance;
    }

    /// Where it stands in the queue for a backend.
    pub(crate) fn queue_position(&self) -> Option<usize> {
        let waits_for = self.state.lock().waits_for.clone();
        waits_for.and_then(|(slots, ticket)| slots.position(ticket))
    }

    /// Shows what it waits for.
    pub(crate) fn set_waits_for(&self, claim: Option<(Slots, Ticket)>) {
        self.state.lock().waits_for = claim;
    }

    /// Its backend was lost with no pin known: it goes on on another, and whoever uses it next is told.
    pub(crate) fn recover(&self) {
        let mut state = self.state.lock();
        state.incarnation += 1;
        state.untold = true;
    }

    /// What its user is to be told, where it was recovered and nobody was told yet.
    pub(crate) fn take_untold(&self) -> Option<PoolerError> {
        let mut state = self.state.lock();
        let fell = std::mem::take(&mut state.fell);
        std::mem::take(&mut state.untold).then(|| state.recovered(fell))
    }

    /// As [`Session::recover`], where somebody is told with this. Returns the new incarnation.
    pub(crate) fn recover_and_tell(&self) -> i64 {
        let mut state = self.state.lock();
        state.incarnation += 1;
        state.incarnation
    }

    /// Waits until something about it changes.
    pub(crate) async fn bell(&self) {
        self.control.bell.notified().await;
    }

    /// True once its execution is to be cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.is_cancelled()
    }

    /// True once its execution is to end because an elevation did.
    pub(crate) fn is_falling(&self) -> bool {
        self.control.is_falling()
    }

    /// Lets its task go, unless there is something to do.
    fn leave(&self) -> bool {
        let mut state = self.state.lock();
        let nothing =
            state.work.is_none() && state.end.is_none() && state.returned.is_none() && !state.discards;
        state.served = !nothing;
        nothing
    }

    pub(crate) fn end(&self) -> Option<Loss> {
        self.state.lock().end
    }

    fn set_end(&self, cause: LossCause) -> Loss {
        self.state.lock().end_for(cause)
    }

    /// The backend it works on.
    fn sits_on(&self, backend: &Backend) {
        let mut state = self.state.lock();
        state.backend_pid = backend.connection.process_id().unwrap_or_default();
        state.waits_for = None;
    }

    /// Notes how the execution ended. From here on the session can be given other work.
    /// `told` says that somebody sees how.
    fn finish(&self, ended: &Ended, told: bool) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let falls = std::mem::take(&mut state.falls);
        if let Some(record) = &mut state.record {
            record.end_time = Some(now);
            record.outcome = ended.outcome;
            record.rows = ended.rows;
            record.error = ended.error.as_ref().map(ShortError::of);
            record.commit.clone_from(&ended.commit);
        }
        state.suspended = state
            .busy
            .filter(|_| ended.outcome == ExecutionOutcome::Suspended)
            .map(|execution| Portal {
                execution,
                after: ended.last_event,
            });
        let gone = match (&ended.lost, ended.cancel_in_doubt) {
            (Some(Lost::Killed), _) => Some(LossCause::Killed),
            (Some(_), _) => Some(LossCause::BackendTerminated),
            (None, true) => Some(LossCause::CancelUnsettled),
            (None, false) => None,
        };
        match gone {
            None => {
                state.transaction = ended.transaction;
                // What was found on its backend since is newer.
                if state.returned.is_none() {
                    state.set_pins(ended.pins);
                }
                state.transaction_since = ended.transaction_since;
            }
            Some(cause) if self.pool().is_none() || !(ended.pins.is_empty() || falls) => {
                state.set_pins(ended.pins);
                state.end_for(cause);
            }
            // Nothing was pinned, or nothing that may stay: the session goes on on another backend. Who saw that one go, or why,
            // needs not be told again.
            Some(_) => {
                let saw = ended.lost.is_some() || ended.outcome == ExecutionOutcome::ElevationEnded;
                state.untold = !(told && saw);
                state.fell = falls && state.untold;
                if falls && !ended.pins.is_empty() {
                    // It may have listened.
                    self.watchers.end();
                }
                state.transaction = TransactionStatus::Idle;
                state.transaction_since = None;
                state.set_pins(Pins::NONE);
                state.incarnation += 1;
            }
        }
        if falls {
            self.fallen(
                &mut state,
                told && ended.outcome == ExecutionOutcome::ElevationEnded,
            );
        }
        if state.pins.is_empty() {
            state.backend_pid = 0;
        }
        state.busy = None;
        state.touch(now);
    }

    /// The execution came to nothing: no backend was found for it.
    fn forget_execution(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.falls) {
            self.fallen(&mut state, false);
        }
        state.busy = None;
        state.record = None;
        state.request = None;
        state.waits_for = None;
        state.touch(self.clock.now());
    }
}
