//! A query session: who owns it, how it stands, and the work it is given. Its task, in [`task`], holds the backend.
//!
//! Invariant: a session runs one thing at a time. Work is accepted, and a cancellation bound to it, under one lock, so
//! that neither can hit something else.

mod cancelling;
mod control;
mod copy_source;
mod execution;
mod pipe;
mod task;

use std::sync::Arc;
use std::time::Duration;

use domain::clock::Clock;
use domain::id::{ExecutionId, UserId};
use domain::session::{ExecutionName, SessionName};
use parking_lot::Mutex;
use rpc::query;
use rpc::query::v1::{
    ExecutionOutcome, OnDisconnect, PinReason, SessionMode, SessionState, SqlError, TransactionStatus,
};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::control::Control;
pub(crate) use self::copy_source::{CopySender, CopySource, copy_channel};
pub(crate) use self::execution::{Ended, Execution, Identity, Plan};
pub(crate) use self::pipe::{PipeReader, PipeWriter, pipe};
pub(crate) use self::task::run;
use crate::error::{LossCause, PoolerError};
use crate::timestamp::timestamp;

/// The contract's word for a transaction's status.
pub(crate) fn transaction_status(status: pgconn::TransactionStatus) -> TransactionStatus {
    match status {
        pgconn::TransactionStatus::Idle => TransactionStatus::Idle,
        pgconn::TransactionStatus::InTransaction => TransactionStatus::InTransaction,
        pgconn::TransactionStatus::Failed => TransactionStatus::Failed,
    }
}

/// Something for a session to do.
pub(crate) enum Work {
    /// A script whose events somebody reads.
    Script {
        plan: Plan,
        output: PipeWriter,
        on_disconnect: OnDisconnect,
    },
    /// A statement of which only the end matters.
    Quiet {
        plan: Plan,
        copy: CopySource,
        reply: oneshot::Sender<Ended>,
    },
}

/// What never changes about a session.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: SessionName,
    pub(crate) owner: UserId,
    pub(crate) database: String,
    pub(crate) username: String,
    pub(crate) backend_pid: i32,
    pub(crate) create_time: OffsetDateTime,
    pub(crate) idle_timeout: Duration,
    pub(crate) idle_in_transaction_timeout: Duration,
}

/// A session as everybody but its task sees it.
pub(crate) struct Session {
    pub(crate) facts: Facts,
    control: Control,
    state: Mutex<State>,
    ended: CancellationToken,
    clock: Arc<dyn Clock>,
}

struct State {
    busy: Option<ExecutionId>,
    work: Option<Work>,
    /// Why it ends, from the moment that is decided.
    end: Option<LossCause>,
    transaction: TransactionStatus,
    last_use: Instant,
    last_use_time: OffsetDateTime,
    record: Option<Record>,
}

/// The last execution.
#[derive(Debug, Clone)]
struct Record {
    id: ExecutionId,
    start_time: OffsetDateTime,
    end_time: Option<OffsetDateTime>,
    outcome: ExecutionOutcome,
    rows: i64,
    error: Option<SqlError>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that begins now, outside a transaction.
    pub(crate) fn new(facts: Facts, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            busy: None,
            work: None,
            end: None,
            transaction: TransactionStatus::Idle,
            last_use: Instant::now(),
            last_use_time: facts.create_time,
            record: None,
        };
        Self {
            facts,
            control: Control::default(),
            state: Mutex::new(state),
            ended: CancellationToken::new(),
            clock,
        }
    }

    /// Its incarnation. A pinned session is never recovered.
    pub(crate) fn incarnation(&self) -> i64 {
        1
    }

    /// A pipe whose reader this session's task heeds.
    pub(crate) fn pipe(&self) -> (PipeWriter, PipeReader) {
        pipe(Arc::clone(&self.control.bell))
    }

    /// Gives it something to do, if `allowed` says so of its transaction.
    pub(crate) fn start(
        &self,
        execution: ExecutionId,
        work: Work,
        allowed: impl FnOnce(TransactionStatus) -> bool,
    ) -> Result<(), PoolerError> {
        let mut state = self.state.lock();
        state.alive()?;
        if state.busy.is_some() {
            return Err(PoolerError::SessionBusy);
        }
        if !allowed(state.transaction) {
            return Err(PoolerError::TransactionState {
                status: state.transaction,
            });
        }
        state.touch(self.clock.now());
        state.busy = Some(execution);
        state.record = Some(Record {
            id: execution,
            start_time: state.last_use_time,
            end_time: None,
            outcome: ExecutionOutcome::Unspecified,
            rows: 0,
            error: None,
        });
        state.work = Some(work);
        self.control.reset();
        drop(state);
        self.control.bell.notify_one();
        Ok(())
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

    /// Puts off the idle limit.
    pub(crate) fn keep_alive(&self) -> Result<(), PoolerError> {
        let mut state = self.state.lock();
        state.alive()?;
        state.touch(self.clock.now());
        Ok(())
    }

    /// Ends the session for `cause`, unless it ends already, and waits until its backend is gone.
    pub(crate) async fn close(&self, cause: LossCause) {
        self.begin_close(cause);
        self.ended().await;
    }

    /// Waits until the backend is gone.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The first half of [`Session::close`].
    pub(crate) fn begin_close(&self, cause: LossCause) {
        self.state.lock().end.get_or_insert(cause);
        self.control.close();
    }

    /// The session as clients see it.
    pub(crate) fn describe(&self) -> Result<query::v1::Session, PoolerError> {
        let state = self.state.lock();
        state.alive()?;
        let mut pins = vec![PinReason::Mode.into()];
        if state.transaction != TransactionStatus::Idle {
            pins.push(PinReason::Transaction.into());
        }
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
        Ok(query::v1::Session {
            name: self.facts.name.to_string(),
            database: self.facts.database.clone(),
            username: self.facts.username.clone(),
            mode: SessionMode::Pinned.into(),
            state: if state.busy.is_some() {
                SessionState::Busy
            } else {
                SessionState::Idle
            }
            .into(),
            transaction_status: state.transaction.into(),
            pins,
            backend_pid: self.facts.backend_pid,
            incarnation: self.incarnation(),
            owner: format!("users/{}", self.facts.owner),
            create_time: Some(timestamp(self.facts.create_time)),
            last_use_time: Some(timestamp(state.last_use_time)),
            // A session that works is not idle, however long it takes.
            expire_time: expire.1.then(|| timestamp(expire.0)),
            execution: state.busy.map(name).unwrap_or_default(),
        })
    }

    /// The last execution, if it is that one.
    pub(crate) fn execution(&self, id: ExecutionId) -> Result<query::v1::Execution, PoolerError> {
        let name = ExecutionName {
            session: self.facts.name,
            execution: id,
        }
        .to_string();
        let state = self.state.lock();
        state.alive()?;
        let Some(record) = state.record.as_ref().filter(|record| record.id == id) else {
            return Err(PoolerError::NotFound { resource: name });
        };
        let running = record.end_time.is_none();
        Ok(query::v1::Execution {
            name,
            running,
            outcome: record.outcome.into(),
            row_count: if running { self.control.rows() } else { record.rows },
            error: record.error.clone(),
            start_time: Some(timestamp(record.start_time)),
            end_time: record.end_time.map(timestamp),
            transaction_status: state.transaction.into(),
        })
    }

    fn idle_limit(&self, state: &State) -> (LossCause, Duration) {
        let (idle, in_transaction) = (self.facts.idle_timeout, self.facts.idle_in_transaction_timeout);
        if state.transaction != TransactionStatus::Idle && in_transaction < idle {
            (LossCause::IdleInTransactionTimeout, in_transaction)
        } else {
            (LossCause::IdleTimeout, idle)
        }
    }

    // For its task.

    fn take_work(&self) -> Option<(ExecutionId, Work)> {
        let mut state = self.state.lock();
        let work = state.work.take()?;
        state.busy.map(|execution| (execution, work))
    }

    /// When it expires if nothing happens.
    fn idle_deadline(&self) -> Instant {
        let state = self.state.lock();
        state.last_use + self.idle_limit(&state).1
    }

    /// Ends it if it has expired.
    fn expire(&self) {
        let mut state = self.state.lock();
        let (cause, limit) = self.idle_limit(&state);
        if state.busy.is_none() && state.last_use + limit <= Instant::now() {
            state.end.get_or_insert(cause);
        }
    }

    fn end(&self) -> Option<LossCause> {
        self.state.lock().end
    }

    fn set_end(&self, cause: LossCause) -> LossCause {
        *self.state.lock().end.get_or_insert(cause)
    }

    /// Notes how the execution ended. From here on the session can be given other work.
    fn finish(&self, ended: &Ended) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(record) = &mut state.record {
            record.end_time = Some(now);
            record.outcome = ended.outcome;
            record.rows = ended.rows;
            record.error = ended.error.clone();
        }
        state.transaction = ended.transaction;
        if ended.lost.is_some() {
            state.end.get_or_insert(LossCause::BackendTerminated);
        } else if ended.cancel_in_doubt {
            state.end.get_or_insert(LossCause::CancelUnsettled);
        }
        state.busy = None;
        state.touch(now);
    }
}

impl State {
    fn alive(&self) -> Result<(), PoolerError> {
        match self.end {
            Some(cause) => Err(PoolerError::StateLost { cause }),
            None => Ok(()),
        }
    }

    fn touch(&mut self, now: OffsetDateTime) {
        self.last_use = Instant::now();
        self.last_use_time = now;
    }
}
