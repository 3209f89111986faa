//! One execution after the other in a session: events in, data and messages out, Ctrl-C to cancel.

mod events;
mod paging;

use std::time::{Duration, Instant};

use rpc::errors::v1::ErrorReason;
use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    CancelExecutionRequest, Column, ExecuteRequest, ExecutionFinished, ExecutionOutcome, GetExecutionRequest,
    GetSessionRequest, Script, Session, SqlError, StatementCompleted, TransactionCommitting,
    TransactionStatus,
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use self::events::{Events, GRACE, SILENCE};
use self::paging::Suspended;
use super::results::Results;
use super::{commit, message_text};
use crate::connection::{Call, Connection};
use crate::context::{Context, Notes};
use crate::error::ClientError;
use crate::exit::Exit;
use crate::interrupts::Interrupts;
use crate::output::sink::Sink;
use domain::sql::StringSyntax;

const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// Runs scripts in a session and remembers how it stands.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) session: Session,
    /// How the server reads strings, as far as it told.
    pub(super) strings: StringSyntax,
    /// True to say how long each script took.
    pub(super) timing: bool,
    /// True to stop where a result is suspended; else the rest of it is fetched too.
    pub(super) pauses: bool,
    /// What can be gone on with.
    suspended: Option<Suspended>,
    connection: Connection,
    results: Results,
    interrupts: Interrupts,
    quiet: bool,
    failed: bool,
}

/// How a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) outcome: ExecutionOutcome,
    pub(super) interrupted: bool,
}

impl Ended {
    pub(super) fn is_success(self) -> bool {
        matches!(
            self.outcome,
            ExecutionOutcome::Succeeded | ExecutionOutcome::Suspended
        )
    }
}

/// How far the events were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    ToItsEnd,
    /// To their end, after an interrupt.
    Cancelled,
    /// Not to their end.
    GivenUp,
}

/// What is known of the execution that runs.
struct Running<'a> {
    name: String,
    sql: &'a str,
    /// Lines of the whole script before `sql`.
    lines_before: usize,
    /// The number of the last event that came.
    last_event: i64,
    /// True between the columns of a result set and its end.
    in_result: bool,
    /// The COMMIT that was announced and is not answered.
    committing: Option<TransactionCommitting>,
    /// The columns of the last result set.
    columns: Vec<Column>,
    finished: Option<ExecutionFinished>,
}

impl Running<'_> {
    fn outcome(&self) -> ExecutionOutcome {
        self.finished
            .as_ref()
            .map_or(ExecutionOutcome::Unspecified, ExecutionFinished::outcome)
    }
}

/// Where events come from.
enum Source {
    /// A script that is run.
    Script(Script),
    /// More of the suspended execution of that name.
    Suspended(String),
}

impl Execution {
    pub(super) fn new(
        context: &mut Context,
        session: Session,
        results: Results,
        quiet: bool,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            session,
            strings: StringSyntax::Standard,
            timing: false,
            pauses: false,
            suspended: None,
            connection: context.connection()?,
            results,
            interrupts: context.interrupts.clone(),
            quiet,
            failed: false,
        })
    }

    /// What all scripts together come to.
    pub(super) fn verdict(&self) -> Result<(), ClientError> {
        if self.failed {
            Err(ClientError::Reported(Exit::Failed))
        } else {
            Ok(())
        }
    }

    /// Something failed and was reported.
    pub(super) fn note_failure(&mut self) {
        self.failed = true;
    }

    /// Runs a script to its end. `lines_before` says how many lines of the user's text precede it.
    ///
    /// SQL errors are reported here and are no error of this call; the outcome says that there were some.
    pub(super) async fn run(
        &mut self,
        context: &mut Context,
        script: Script,
        lines_before: usize,
    ) -> Result<Ended, ClientError> {
        let began = Instant::now();
        self.interrupts.forget();
        self.suspended = None;
        let sql = script.sql.clone();
        let mut running = Running {
            name: String::new(),
            sql: &sql,
            lines_before,
            last_event: 0,
            in_result: false,
            committing: None,
            columns: Vec::new(),
            finished: None,
        };
        let outcome = self.follow(context, Source::Script(script), &mut running).await;
        self.ended(context, outcome, running, began).await
    }

    /// Tells how the events ended.
    async fn ended(
        &mut self,
        context: &mut Context,
        outcome: Result<Followed, ClientError>,
        running: Running<'_>,
        began: Instant,
    ) -> Result<Ended, ClientError> {
        // Whatever came is shown, also where the rest will not come; but not to a reader that was given up.
        if !matches!(outcome, Ok(Followed::GivenUp)) {
            if running.in_result {
                self.results
                    .end(running.finished.is_none(), &mut context.out)
                    .await?;
            }
            context.out.flush().await?;
        }
        let interrupted = match outcome {
            Ok(followed) => followed != Followed::ToItsEnd,
            Err(ClientError::Status(status)) if !running.name.is_empty() => {
                return Err(self.broken_off(context, *status, &running).await);
            }
            Err(error) => return Err(error),
        };
        let outcome = match running.outcome() {
            // The portal was closed after that.
            ExecutionOutcome::Suspended if interrupted => ExecutionOutcome::Cancelled,
            outcome => outcome,
        };
        match outcome {
            ExecutionOutcome::Lost if running.committing.is_some() => {
                context.notes.line("error: the connection to PostgreSQL was lost");
                self.tell_commit(context, &running).await;
            }
            ExecutionOutcome::LimitExceeded => context
                .notes
                .line("error: a result is larger than its limit; see --max-rows and --max-bytes"),
            ExecutionOutcome::Suspended => self.suspended = Some(Suspended::of(&running)),
            ExecutionOutcome::ElevationEnded => context.notes.line(
                "error: the elevation ended; the transaction was rolled back, and the session is read-only",
            ),
            ExecutionOutcome::TimedOut => context.notes.line("error: the statement ran into its time limit"),
            ExecutionOutcome::Lost => context.notes.line(
                "error: the connection to PostgreSQL was lost; whether the last statement took effect is unknown",
            ),
            ExecutionOutcome::Cancelled if interrupted => context.notes.line("cancelled"),
            _ => {}
        }
        if self.timing {
            context
                .notes
                .line(&format!("Time: {:.3} ms", began.elapsed().as_secs_f64() * 1000.0));
        }
        let ended = Ended { outcome, interrupted };
        self.failed |= !ended.is_success();
        Ok(ended)
    }

    /// Reads the events to their end. The first interrupt cancels the execution, the second gives it up.
    async fn follow(
        &mut self,
        context: &mut Context,
        source: Source,
        running: &mut Running<'_>,
    ) -> Result<Followed, ClientError> {
        let stream = tokio::select! {
            biased;
            stream = begin(&self.connection, &mut self.session, source, &mut context.notes) => stream?,
            () = self.interrupts.next() => {
                give_up(&self.connection, &self.session.name).await;
                return Ok(Followed::GivenUp);
            }
        };
        let mut events = Events::new(self.connection.clone(), stream, running.last_event);
        let (connection, mut interrupts) = (self.connection.clone(), self.interrupts.clone());
        let session = self.session.name.clone();
        let mut interrupted = false;
        loop {
            let name = running.name.clone();
            let mut complaint = None;
            let more = {
                let step = self.step(&mut events, running, &mut context.out, &mut context.notes);
                let mut step = std::pin::pin!(step);
                loop {
                    // The step goes on after an interrupt: it may wait for a reader, and half a row is none.
                    tokio::select! {
                        biased;
                        () = interrupts.next() => {
                            if interrupted {
                                return Ok(Followed::GivenUp);
                            }
                            if name.is_empty() {
                                give_up(&connection, &session).await;
                                return Ok(Followed::GivenUp);
                            }
                            interrupted = true;
                            complaint = cancel(&connection, &name).await;
                        }
                        more = &mut step => break more?,
                    }
                }
            };
            if let Some(complaint) = complaint {
                context.notes.line(&complaint);
            }
            if more {
                continue;
            }
            if running.outcome() != ExecutionOutcome::Suspended || self.pauses || interrupted {
                break;
            }
            running.finished = None;
            events.go_on(paging::fetch_more(&connection, running.name.clone()).await?);
        }
        Ok(if interrupted {
            Followed::Cancelled
        } else {
            Followed::ToItsEnd
        })
    }

    /// Takes the next message. False at the end.
    async fn step(
        &mut self,
        events: &mut Events,
        running: &mut Running<'_>,
        out: &mut Sink,
        notes: &mut Notes,
    ) -> Result<bool, ClientError> {
        let next = events.next(&running.name, running.finished.is_some()).await?;
        let Some(next) = next else { return Ok(false) };
        running.last_event = events.last();
        for event in next {
            if let Some(kind) = event.kind {
                self.handle(kind, running, out, notes).await?;
            }
        }
        Ok(true)
    }

    async fn handle(
        &mut self,
        kind: Kind,
        running: &mut Running<'_>,
        out: &mut Sink,
        notes: &mut Notes,
    ) -> Result<(), ClientError> {
        match kind {
            Kind::Started(started) => running.name = started.execution,
            Kind::Columns(columns) => {
                running.in_result = true;
                running.columns = columns.columns;
                self.results.columns(&running.columns, out).await?;
            }
            Kind::Rows(batch) => self.results.rows(&batch.rows, out).await?,
            Kind::ValueChunk(chunk) => self.results.chunk(&chunk, out).await?,
            Kind::CopyData(data) => {
                out.block.extend_from_slice(&data.data);
                out.pass().await?;
            }
            Kind::StatementCompleted(completed) => self.completed(&completed, running, out, notes).await?,
            Kind::SqlError(error) => {
                self.end_result(running, true, out).await?;
                // What was selected before comes first, as it happened.
                out.flush().await?;
                notes.text(&message_text::sql_error(
                    &error,
                    running.sql,
                    running.lines_before,
                ));
            }
            Kind::Notice(notice) => {
                if let Some(message) = notice.message.filter(|_| !self.quiet) {
                    notes.text(&message_text::message(&message));
                }
            }
            Kind::ParameterChanged(changed) => {
                if changed.name == "standard_conforming_strings" {
                    let standard = changed.value == "on";
                    self.strings = if standard {
                        StringSyntax::Standard
                    } else {
                        StringSyntax::Escape
                    };
                }
            }
            Kind::Finished(finished) => {
                self.session.set_transaction_status(finished.transaction_status());
                self.session.pins.clone_from(&finished.pins);
                running.finished = Some(finished);
            }
            Kind::Committing(committing) => running.committing = Some(committing),
            Kind::CopyOutStarted(_) | Kind::Heartbeat(_) => {}
        }
        Ok(())
    }

    async fn completed(
        &mut self,
        completed: &StatementCompleted,
        running: &mut Running<'_>,
        out: &mut Sink,
        notes: &mut Notes,
    ) -> Result<(), ClientError> {
        running.committing = None;
        let had_rows = running.in_result;
        self.end_result(running, false, out).await?;
        if completed.truncated {
            notes.line(
                "note: rows were left out; see --max-rows, --max-bytes and the settings query.row_limit and query.byte_limit",
            );
        }
        if !had_rows && !self.quiet && !completed.command_tag.is_empty() {
            notes.line(&completed.command_tag);
        }
        Ok(())
    }

    async fn end_result(
        &mut self,
        running: &mut Running<'_>,
        cut: bool,
        out: &mut Sink,
    ) -> Result<(), ClientError> {
        if std::mem::take(&mut running.in_result) {
            self.results.end(cut, out).await?;
        }
        Ok(())
    }

    /// What is known of an execution whose events broke off. The statement is not sent again.
    async fn broken_off(
        &mut self,
        context: &mut Context,
        status: Status,
        running: &Running<'_>,
    ) -> ClientError {
        self.failed = true;
        if status.code() != Code::Unavailable && status.code() != Code::Unknown {
            return status.into();
        }
        if running.committing.is_some() {
            context.notes.line("note: the answer of the COMMIT broke off");
            self.tell_commit(context, running).await;
            return status.into();
        }
        let client = self.connection.queries();
        let request = GetExecutionRequest {
            name: running.name.clone(),
        };
        let call = Call::repeatable(CANCEL_DEADLINE);
        let found = self
            .connection
            .call(call, async || client.clone().get_execution(request.clone()).await)
            .await;
        let how = match found.ok().and_then(|answer| answer.execution) {
            Some(execution) if execution.running => "it still runs".to_owned(),
            Some(execution) => {
                let word = execution
                    .outcome()
                    .as_str_name()
                    .trim_start_matches("EXECUTION_OUTCOME_");
                format!("it ended: {}", word.to_ascii_lowercase())
            }
            None => "whether it took effect is unknown".to_owned(),
        };
        context
            .notes
            .line(&format!("note: the answer of the statement broke off; {how}"));
        status.into()
    }

    /// Says what became of a COMMIT whose answer did not come. An interrupt gives up asking.
    async fn tell_commit(&mut self, context: &mut Context, running: &Running<'_>) {
        let Some(committing) = &running.committing else {
            return;
        };
        let how = tokio::select! {
            biased;
            () = self.interrupts.next() => "whether the commit took effect is unknown".to_owned(),
            how = commit::outcome(&self.connection, &running.name, committing) => how,
        };
        context.notes.line(&format!("note: {how}"));
    }

    /// Reports an SQL error that came outside an execution's events.
    pub(super) fn sql_error(
        &mut self,
        context: &mut Context,
        error: &SqlError,
        sql: &str,
        lines_before: usize,
    ) {
        self.failed = true;
        context
            .notes
            .text(&message_text::sql_error(error, sql, lines_before));
    }

    /// The transaction's status as it was told last.
    pub(super) fn transaction(&self) -> TransactionStatus {
        self.session.transaction_status()
    }
}

/// The session's incarnation, as an error tells it.
fn incarnation(status: &Status) -> i64 {
    let told = status.get_details_error_info();
    let current = told.and_then(|told| told.metadata.get("incarnation")?.parse().ok());
    current.unwrap_or_default()
}

/// Starts a script. Where the session was recovered meanwhile, nothing was run: it is run now if the session held
/// nothing that could be lost, as far as was stated.
async fn begin(
    connection: &Connection,
    session: &mut Session,
    source: Source,
    notes: &mut Notes,
) -> Result<Streaming<EncodedEvents>, Status> {
    let script = match source {
        Source::Script(script) => script,
        Source::Suspended(execution) => return paging::fetch_more(connection, execution).await,
    };
    let mut sent = 0;
    let refusal = match start(connection, session, script.clone(), &mut sent).await {
        Err(status) if rpc::error::reason(&status) == Some(ErrorReason::SessionRecovered) => status,
        Err(status) if rpc::error::reason(&status) == Some(ErrorReason::ElevationEnded) => {
            // Nothing was run, and it is not run now: what it was to go on with is gone.
            session.incarnation = incarnation(&status);
            return Err(status);
        }
        answer => return answer,
    };
    if sent > 1 {
        // That nothing was run is said of the last time it was sent.
        return Err(Status::unknown(
            "the session lost its connection while the statement was sent; whether it took effect is unknown",
        ));
    }
    session.incarnation = incarnation(&refusal);
    if !session.pins.is_empty() {
        return Err(refusal);
    }
    notes.line("note: the session lost its connection and goes on on another; nothing was run twice");
    start(connection, session, script, &mut sent).await
}

/// Counts in `sent` how often it was sent.
async fn start(
    connection: &Connection,
    session: &Session,
    script: Script,
    sent: &mut usize,
) -> Result<Streaming<EncodedEvents>, Status> {
    let request = ExecuteRequest {
        session: session.name.clone(),
        script: Some(script),
        incarnation: session.incarnation,
        // So that it can be sent again where it is not known what became of it, and read on where its answer breaks off.
        request_id: connection.request_id(),
        disconnect_grace: Some(GRACE),
        ..ExecuteRequest::default()
    };
    let client = connection.queries();
    connection
        .call(Call::repeatable(SILENCE), async || {
            *sent += 1;
            client.clone().execute(request.clone()).await
        })
        .await
}

/// Cancels what runs in a session, of which the name is not known yet.
async fn give_up(connection: &Connection, session: &str) {
    let client = connection.queries();
    let request = GetSessionRequest {
        name: session.to_owned(),
    };
    let call = Call::repeatable(CANCEL_DEADLINE);
    let found = connection
        .call(call, async || client.clone().get_session(request.clone()).await)
        .await;
    if let Some(session) = found.ok().and_then(|answer| answer.session)
        && !session.execution.is_empty()
    {
        // Where that fails too, it ends by itself once nobody has come for a while.
        let _ = cancel(connection, &session.execution).await;
    }
}

/// Asks for an execution to be cancelled. Says so where that does not work.
async fn cancel(connection: &Connection, execution: &str) -> Option<String> {
    let client = connection.queries();
    let request = CancelExecutionRequest {
        name: execution.to_owned(),
    };
    let call = Call::repeatable(CANCEL_DEADLINE);
    let outcome = connection
        .call(call, async || {
            client.clone().cancel_execution(request.clone()).await
        })
        .await;
    match outcome {
        // It has ended by itself: its events say how.
        Err(status) if status.code() != Code::FailedPrecondition => Some(format!(
            "cannot cancel: {}; press Ctrl-C again to give up",
            status.message()
        )),
        _ => None,
    }
}
