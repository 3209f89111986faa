//! Runs one execution on a backend: sends its statements, turns what the server says into events, and heeds limits,
//! cancellation and the reader's pace meanwhile.
//!
//! Invariants: a statement is given to the backend only when it is ready and no cancel request is under way; what the
//! server says is taken from the socket only while the reader has room for it, or when nobody wants it any more.

mod commit;
mod limits;
mod portal;
mod read_only;
mod result_set;
mod script;
mod statement;

use std::time::Duration;

use domain::access::Access;
use domain::pin::Pins;
use pgconn::{Connection, ConnectionError, Event, Progress, SendError};
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecutionFinished, ExecutionOutcome, ExecutionStarted, SqlError, TransactionStatus};
use thiserror::Error;
use tokio::time::Instant;

use self::commit::Question;
use self::limits::Limits;
pub(crate) use self::portal::{PortalUse, Suspended};
use self::read_only::Preamble;
pub(crate) use self::script::Plan;
use self::statement::Statement;
use super::cancelling::Cancelling;
use super::commit::Commit;
use super::control::Control;
use super::copy_source::{CopySource, Feed};
use super::pipe::{Detaching, PipeWriter};
use super::watchers::Watchers;
use super::{pin_reasons, transaction_status};
use crate::backend::{Backend, wake_at};
use crate::events::EventWriter;
use crate::hold::Verdict;
use crate::look::{LookError, look};

/// The backend is gone, or is in a state that nobody understands.
#[derive(Debug, Error)]
pub(crate) enum Lost {
    /// The connection ended.
    #[error("the connection to the server was lost")]
    Connection(#[from] ConnectionError),
    /// A message could not be sent.
    #[error("a message could not be sent to the server")]
    Send(#[from] SendError),
    /// The session is to be closed and the server does not answer.
    #[error("the server did not end the statement in time")]
    Unresponsive,
    /// A COPY began after a Sync that it may have swallowed: nobody can tell when the server is ready.
    #[error("a COPY FROM STDIN began where parameters were given")]
    SyncInDoubt,
    /// An administrator had the connection closed.
    #[error("the connection was closed by an administrator")]
    Killed,
    /// The elevation is over, and what was written is not to be committed.
    #[error("the elevation ended while a portal was open")]
    ElevationEnded,
    /// The session is to be closed, and what was written is not to be committed.
    #[error("the session was closed while a portal was open")]
    Closing,
    /// The server does not keep a transaction read-only that is to be so.
    #[error("a transaction is not the read-only one it should be")]
    NotReadOnly,
    /// The server speaks of replication.
    #[error("the server began a replication stream")]
    Replication,
}

/// Why an execution is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    Cancelled,
    TimedOut,
    LimitExceeded,
    ReaderGone,
    ElevationEnded,
    Closing,
}

/// How an execution ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// In the words of the contract.
    pub(crate) outcome: ExecutionOutcome,
    /// Rows sent.
    pub(crate) rows: i64,
    /// The last error.
    pub(crate) error: Option<SqlError>,
    /// The last command tag.
    pub(crate) tag: String,
    /// Rows that tag counts.
    pub(crate) tag_rows: Option<i64>,
    /// The transaction, as the server stated it last.
    pub(crate) transaction: TransactionStatus,
    /// Why the backend cannot be used any more, if so.
    pub(crate) lost: Option<Lost>,
    /// A cancel request may still strike: the backend must be closed.
    pub(crate) cancel_in_doubt: bool,
    /// What holds the session on the backend, or held it there when it was lost.
    pub(crate) pins: Pins,
    /// Since when its transaction is open, if one is.
    pub(crate) transaction_since: Option<Instant>,
    /// The number of its last event.
    pub(crate) last_event: i64,
    /// The last COMMIT that was announced.
    pub(crate) commit: Option<Commit>,
}

impl Ended {
    /// Of an execution that was cancelled while it waited for a backend.
    pub(crate) fn before_it_began() -> Self {
        Self {
            outcome: ExecutionOutcome::Cancelled,
            rows: 0,
            error: None,
            tag: String::new(),
            tag_rows: None,
            transaction: TransactionStatus::Idle,
            lost: None,
            cancel_in_doubt: false,
            pins: Pins::NONE,
            transaction_since: None,
            last_event: 0,
            commit: None,
        }
    }

    /// Its only event.
    pub(crate) fn into_events(self, output: PipeWriter) -> LastEvents {
        let mut writer = EventWriter::new(0);
        writer.event(Kind::Finished(self.finished(Duration::ZERO)));
        LastEvents { writer, output }
    }

    fn finished(&self, elapsed: Duration) -> ExecutionFinished {
        // Of a backend that is gone nothing holds any more.
        let fell = self.outcome == ExecutionOutcome::ElevationEnded;
        let is_gone = self.lost.is_some() || self.cancel_in_doubt || fell;
        let pins = if is_gone { Pins::NONE } else { self.pins };
        let transaction = if fell {
            TransactionStatus::Idle
        } else {
            self.transaction
        };
        ExecutionFinished {
            outcome: self.outcome.into(),
            transaction_status: transaction.into(),
            pins: pin_reasons(pins),
            elapsed: prost_types::Duration::try_from(elapsed).ok(),
            row_count: self.rows,
        }
    }
}

/// What an execution says about itself when it begins and ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// Its name; empty without a session.
    pub(crate) execution: String,
    /// The session's incarnation.
    pub(crate) incarnation: i64,
}

/// One execution.
pub(crate) struct Execution<'a> {
    backend: &'a mut Backend,
    control: &'a Control,
    output: Option<PipeWriter>,
    detaching: Detaching,
    identity: Identity,
    watchers: Option<&'a Watchers>,
    access: Access,
    /// What of ours comes before the statement, in a read-only session.
    preamble: Preamble,
    writer: EventWriter,
    statement: Statement,
    limits: Limits,
    copy: CopySource,
    feed: Feed,
    interrupt: Option<Interrupt>,
    cancelling: Option<Cancelling>,
    cancel_in_doubt: bool,
    /// Since when a transaction is open, or the statement runs.
    transaction_since: Option<Instant>,
    /// A question of ours that the server is to answer.
    question: Option<Question>,
    /// The last COMMIT that was announced.
    commit: Option<Commit>,
    /// Rows of a portal are asked for, and no Sync was sent.
    fetching: bool,
    /// How its portal can be gone on with, once it is suspended.
    suspended: Option<Suspended>,
    rows: i64,
    error: Option<SqlError>,
    /// A statement was not run or failed.
    incomplete: bool,
    failed: bool,
}

impl<'a> Execution<'a> {
    /// An execution whose events go to `output`, or nowhere.
    pub(crate) fn new(
        backend: &'a mut Backend,
        control: &'a Control,
        output: Option<PipeWriter>,
        identity: Identity,
    ) -> Self {
        Self {
            backend,
            control,
            output,
            detaching: Detaching::Cancel {
                grace: Duration::ZERO,
            },
            identity,
            watchers: None,
            access: Access::ReadWrite,
            preamble: Preamble::default(),
            writer: EventWriter::new(0),
            statement: Statement::default(),
            limits: Limits::new(),
            copy: CopySource::None,
            feed: Feed::Nothing,
            interrupt: None,
            cancelling: None,
            cancel_in_doubt: false,
            transaction_since: None,
            question: None,
            commit: None,
            fetching: false,
            suspended: None,
            rows: 0,
            error: None,
            incomplete: false,
            failed: false,
        }
    }

    /// What it may do.
    pub(crate) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// What follows when the reader goes away.
    pub(crate) fn detaching(mut self, detaching: Detaching) -> Self {
        self.detaching = detaching;
        self
    }

    /// Who hears of notifications that arrive meanwhile.
    pub(crate) fn watched_by(mut self, watchers: &'a Watchers) -> Self {
        self.watchers = Some(watchers);
        self
    }

    /// Where `COPY ... FROM STDIN` takes its data.
    pub(crate) fn copy_from(mut self, copy: CopySource) -> Self {
        self.copy = copy;
        self
    }

    fn start(&mut self) {
        if let Some(listing) = self.backend.listing() {
            // What passed since its last execution was ours.
            listing.passed_unseen(self.connection().traffic());
        }
        if self.output.is_some() {
            self.writer.event(Kind::Started(ExecutionStarted {
                execution: std::mem::take(&mut self.identity.execution),
                backend_pid: self.connection().process_id().unwrap_or_default(),
                incarnation: self.identity.incarnation,
            }));
        }
    }

    /// Ends the execution. The last events are handed to `after`, to be sent once the session is free again.
    fn end(mut self, result: Result<(), Lost>) -> (Ended, Option<LastEvents>) {
        let lost = result.err();
        let outcome = self.outcome(lost.as_ref());
        let transaction = self.connection().transaction_status();
        if lost.is_none() {
            self.backend.hold.ready(transaction);
        }
        let mut ended = Ended {
            outcome,
            rows: self.rows,
            error: self.error.take(),
            tag: std::mem::take(&mut self.statement.tag),
            tag_rows: self.statement.tag_rows,
            transaction: transaction_status(transaction),
            lost,
            cancel_in_doubt: self.cancel_in_doubt,
            pins: self.backend.hold.pins(),
            // An implicit one too, which a suspended portal keeps open.
            transaction_since: self
                .transaction_since
                .filter(|_| transaction != pgconn::TransactionStatus::Idle || self.suspended.is_some()),
            commit: self.commit.take(),
            last_event: 0,
        };
        self.writer
            .event(Kind::Finished(ended.finished(self.limits.elapsed())));
        ended.last_event = self.writer.last();
        self.keep_suspended();
        let writer = self.writer;
        let last = self.output.map(|output| LastEvents { writer, output });
        (ended, last)
    }

    /// Looks at what the backend holds now, where the script may have changed that.
    async fn look(&mut self) -> Result<(), Lost> {
        let backend = &mut *self.backend;
        let status = backend.connection.transaction_status();
        if self.cancel_in_doubt || backend.hold.ready(status) != Verdict::Look {
            return Ok(());
        }
        let watchers = self.watchers;
        let overheard = |event| tell(watchers, event);
        match look(&mut backend.connection, &backend.baseline, overheard).await {
            Ok(pins) => backend.hold.found(pins),
            Err(LookError::Refused) => backend.hold.hidden(),
            Err(LookError::Lost) => return Err(Lost::Unresponsive),
        }
        Ok(())
    }

    fn outcome(&self, lost: Option<&Lost>) -> ExecutionOutcome {
        match lost {
            // We gave the backend up ourselves.
            Some(Lost::ElevationEnded) => return ExecutionOutcome::ElevationEnded,
            Some(Lost::Closing) => return ExecutionOutcome::Cancelled,
            Some(_) => return ExecutionOutcome::Lost,
            None => {}
        }
        match self.interrupt {
            _ if self.suspended.is_some() => ExecutionOutcome::Suspended,
            // Also where the server had finished: rows are missing.
            Some(Interrupt::LimitExceeded) => ExecutionOutcome::LimitExceeded,
            Some(Interrupt::TimedOut) if self.incomplete => ExecutionOutcome::TimedOut,
            Some(Interrupt::ElevationEnded) if self.incomplete => ExecutionOutcome::ElevationEnded,
            Some(_) if self.incomplete => ExecutionOutcome::Cancelled,
            _ if self.failed => ExecutionOutcome::Failed,
            _ => ExecutionOutcome::Succeeded,
        }
    }

    fn connection(&self) -> &Connection {
        &self.backend.connection
    }

    /// Drives the connection until the server is ready for the next statement.
    async fn until_ready(&mut self) -> Result<(), Lost> {
        loop {
            if self.backend.is_killed() {
                self.backend.cancel_unseen();
                return Err(Lost::Killed);
            }
            while self.may_read() {
                let Some(event) = self.backend.connection.next_buffered()? else {
                    break;
                };
                if self.step(event)? {
                    return self.settle().await;
                }
            }
            // The timer below comes last, so that what is there goes with what waits to be sent.
            if self.is_overdue() {
                self.on_timer()?;
            }
            self.feed_inline()?;
            let may_read = self.may_read();
            let (deadline, feeding) = (self.next_deadline(), !matches!(self.feed, Feed::Nothing));
            let timer = wake_at(&mut self.backend.timer, deadline);
            let wants_data = matches!(self.feed, Feed::Stream) && self.backend.connection.pending_out() == 0;
            tokio::select! {
                biased;
                // First, or a server that always has more to say would never let them come.
                () = self.control.bell.notified() => self.heed(),
                _ = drive(&mut self.cancelling) => {}
                progress = progress(&mut self.backend.connection, feeding && !wants_data), if may_read => {
                    if let Progress::Event(event) = progress? && self.step(event)? {
                        return self.settle().await;
                    }
                }
                piece = self.copy.next(), if wants_data => self.feed_piece(piece)?,
                () = timer => self.on_timer()?,
            }
        }
    }

    fn step(&mut self, event: Event) -> Result<bool, Lost> {
        let ready = self.on_event(event)?;
        if self.writer.is_full() {
            self.flush();
        }
        Ok(ready)
    }

    /// After ReadyForQuery: no cancel request may be left that would hit the next statement.
    async fn settle(&mut self) -> Result<(), Lost> {
        self.feed = Feed::Nothing;
        if let Some(cancelling) = self.cancelling.take() {
            self.cancel_in_doubt |= !cancelling.settle().await;
        }
        Ok(())
    }

    fn may_read(&self) -> bool {
        self.interrupt.is_some() || self.output.as_ref().is_none_or(PipeWriter::has_room)
    }

    /// Hands over what was written, or drops it where nobody reads.
    fn flush(&mut self) {
        self.control.set_rows(self.rows);
        match &self.output {
            None => self.writer.clear(),
            // What is left after an interrupt goes with the last events.
            Some(output) if output.has_room() => {
                if let Some(message) = self.writer.take() {
                    output.push(message, self.writer.last());
                    self.limits.sent();
                }
            }
            Some(_) => {}
        }
    }

    /// Looks at what others want.
    fn heed(&mut self) {
        if self.control.is_closing() {
            self.interrupt(Interrupt::Closing);
        }
        if self.control.is_falling() {
            self.interrupt(Interrupt::ElevationEnded);
        }
        if self.control.is_cancelled() {
            self.interrupt(Interrupt::Cancelled);
        }
        if self.output.as_ref().is_some_and(PipeWriter::reader_gone) {
            self.output = None;
            self.interrupt(Interrupt::ReaderGone);
        }
        if self.reader_is_overdue() {
            self.interrupt(Interrupt::ReaderGone);
        }
    }

    /// Cuts the execution short: rows are dropped from now on, and the backend is asked to stop.
    fn interrupt(&mut self, interrupt: Interrupt) {
        // What it runs may write: a server that does not heed the cancel request loses the backend.
        if matches!(interrupt, Interrupt::Closing | Interrupt::ElevationEnded) {
            self.limits.closing();
        }
        if self.interrupt.is_some() {
            return;
        }
        self.interrupt = Some(interrupt);
        self.statement.drop_rows();
        self.writer.drop_large_row();
        if self.backend.connection.ready_owed() == 0 && !self.fetching {
            return;
        }
        // A server that waits for COPY data does not heed a cancel request before some data comes.
        if !matches!(self.feed, Feed::Nothing) {
            self.feed = Feed::Nothing;
            let _ = self.backend.connection.copy_fail("canceled");
        }
        let key = self.backend.connection.cancel_key().cloned();
        self.cancelling =
            key.map(|key| Cancelling::new(key, self.backend.connection.cancel_target().clone()));
    }

    /// True where no further statement is to be run.
    fn is_over(&mut self) -> bool {
        self.heed();
        self.interrupt.is_some()
    }
}

/// Tells a notification to those who follow the session.
fn tell(watchers: Option<&Watchers>, event: Event) {
    if let (
        Some(watchers),
        Event::Notification {
            process_id,
            channel,
            payload,
        },
    ) = (watchers, event)
    {
        watchers.tell(process_id, &channel, &payload);
    }
}

/// The last events of an execution and where they go.
pub(crate) struct LastEvents {
    writer: EventWriter,
    output: PipeWriter,
}

impl LastEvents {
    /// True while somebody reads.
    pub(crate) fn are_read(&self) -> bool {
        !self.output.reader_gone() && self.output.detached_since().is_none()
    }

    /// Sends them.
    pub(crate) fn send(mut self) {
        let last = self.writer.take();
        self.output.end(last.map(|message| (message, self.writer.last())));
    }
}

/// The next event; while data is being sent, also that it has left.
async fn progress(connection: &mut Connection, feeding: bool) -> Result<Progress, ConnectionError> {
    if feeding {
        connection.flush_or_next().await
    } else {
        connection.next().await.map(Progress::Event)
    }
}

async fn drive(cancelling: &mut Option<Cancelling>) -> std::convert::Infallible {
    match cancelling {
        Some(cancelling) => cancelling.drive().await,
        None => std::future::pending().await,
    }
}

/// Time without an event after which a heartbeat is sent.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long events wait for others to go with them.
const LINGER: Duration = Duration::from_millis(3);
/// How long a backend that is to be closed has to end its statement.
const CLOSING: Duration = Duration::from_secs(5);

fn earliest(deadlines: impl IntoIterator<Item = Option<Instant>>) -> Instant {
    let far = Instant::now() + Duration::from_secs(3600);
    deadlines.into_iter().flatten().fold(far, Instant::min)
}
