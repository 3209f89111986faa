//! Sessions and executions as a client uses them: open, run, read the events.

use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    CloseSessionRequest, ExecuteRequest, ExecutionEvent, ExecutionFinished, ExecutionOutcome,
    OpenSessionRequest, Script, Session, SessionMode, SqlError, Transaction, TransactionStatus, Value, value,
};
use tonic::{Status, Streaming};

use crate::Client;

/// What a whole execution gave.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// The execution's name.
    pub execution: String,
    /// The backend that ran it.
    pub backend_pid: i32,
    /// Every row of every result set, values as text; None for NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// Values as they came, for those who care about more than text.
    pub values: Vec<Vec<Value>>,
    /// The command tags.
    pub tags: Vec<String>,
    /// The errors.
    pub errors: Vec<SqlError>,
    /// What the last COMMIT that was announced is about.
    pub transaction: Option<Transaction>,
    /// The last event.
    pub finished: ExecutionFinished,
}

impl Collected {
    /// The first value of the first row.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn value(&self) -> &str {
        let value = self.rows.first().and_then(|row| row.first());
        value
            .and_then(Option::as_deref)
            .unwrap_or_else(|| panic!("no value came: {self:?}"))
    }

    /// Its SQLSTATE, when it failed.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        let message = self.errors.first().and_then(|error| error.message.as_ref());
        message.map_or("", |message| message.sqlstate.as_str())
    }

    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> ExecutionOutcome {
        self.finished.outcome()
    }

    /// The session's transaction when it had ended.
    #[must_use]
    pub fn transaction_status(&self) -> TransactionStatus {
        self.finished.transaction_status()
    }

    fn take(&mut self, event: ExecutionEvent) {
        match event.kind {
            Some(Kind::Started(started)) => {
                self.execution = started.execution;
                self.backend_pid = started.backend_pid;
            }
            Some(Kind::Rows(batch)) => {
                for row in batch.rows {
                    self.rows.push(row.values.iter().map(text).collect());
                    self.values.push(row.values);
                }
            }
            Some(Kind::StatementCompleted(completed)) => self.tags.push(completed.command_tag),
            Some(Kind::SqlError(error)) => self.errors.push(error),
            Some(Kind::Committing(committing)) => self.transaction = committing.transaction,
            Some(Kind::Finished(finished)) => self.finished = finished,
            _ => {}
        }
    }
}

/// An execution whose events are read one message at a time.
#[derive(Debug)]
pub struct Running {
    stream: Streaming<EncodedEvents>,
    collected: Collected,
}

impl Running {
    /// Starts a script and reads up to its `started` event.
    ///
    /// # Errors
    /// What Execute answers.
    pub async fn start(client: &Client, request: ExecuteRequest) -> Result<Self, Status> {
        let stream = client.query().execute(request).await?.into_inner();
        let mut running = Self {
            stream,
            collected: Collected::default(),
        };
        while running.collected.execution.is_empty() {
            if !running.next().await? {
                return Err(Status::internal("the stream ended without `started`"));
            }
        }
        Ok(running)
    }

    /// The execution's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.collected.execution
    }

    /// The backend that runs it.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.collected.backend_pid
    }

    /// What the last COMMIT that was announced is about.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.collected.transaction.as_ref()
    }

    /// Reads one message and keeps its events; false at the end of the stream.
    ///
    /// # Errors
    /// The stream's error.
    pub async fn next(&mut self) -> Result<bool, Status> {
        let Some(message) = self.stream.message().await? else {
            return Ok(false);
        };
        let events = message.events();
        for event in events.map_err(|error| Status::internal(error.to_string()))? {
            self.collected.take(event);
        }
        Ok(true)
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// The stream's error.
    pub async fn finish(mut self) -> Result<Collected, Status> {
        while self.next().await? {}
        Ok(self.collected)
    }

    /// What was read so far, and the stream itself for a reader that does not keep what it reads.
    #[must_use]
    pub fn into_stream(self) -> (Collected, Streaming<EncodedEvents>) {
        (self.collected, self.stream)
    }
}

impl Client {
    /// Opens a session on a server, in its maintenance database.
    ///
    /// # Errors
    /// What OpenSession answers.
    pub async fn open_session(&self, server: &str) -> Result<Session, Status> {
        self.open(OpenSessionRequest {
            server: server.to_owned(),
            ..OpenSessionRequest::default()
        })
        .await
    }

    /// Opens a session that shares backends and waits long for one.
    ///
    /// # Errors
    /// What OpenSession answers.
    pub async fn open_auto(&self, server: &str) -> Result<Session, Status> {
        self.open(OpenSessionRequest {
            server: server.to_owned(),
            mode: SessionMode::Auto.into(),
            queue_timeout: Some(prost_types::Duration {
                seconds: 120,
                nanos: 0,
            }),
            ..OpenSessionRequest::default()
        })
        .await
    }

    async fn open(&self, request: OpenSessionRequest) -> Result<Session, Status> {
        let response = self.query().open_session(request).await?.into_inner();
        response
            .session
            .ok_or_else(|| Status::internal("the response has no session"))
    }

    /// Closes a session.
    ///
    /// # Errors
    /// What CloseSession answers.
    pub async fn close_session(&self, session: &Session) -> Result<(), Status> {
        let name = session.name.clone();
        self.query().close_session(CloseSessionRequest { name }).await?;
        Ok(())
    }

    /// Runs a script in a session and reads all of it.
    ///
    /// # Errors
    /// What Execute answers; SQL errors are in the result.
    pub async fn execute(&self, session: &str, sql: &str) -> Result<Collected, Status> {
        self.start(session, sql).await?.finish().await
    }

    /// Starts a script in a session.
    ///
    /// # Errors
    /// What Execute answers.
    pub async fn start(&self, session: &str, sql: &str) -> Result<Running, Status> {
        let request = ExecuteRequest {
            session: session.to_owned(),
            script: Some(Script {
                sql: sql.to_owned(),
                ..Script::default()
            }),
            ..ExecuteRequest::default()
        };
        Running::start(self, request).await
    }
}

fn text(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        value::Kind::Text(text) => Some(text.clone()),
        value::Kind::Binary(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        value::Kind::Null(_) => None,
        value::Kind::Streamed(streamed) => Some(format!("<{} bytes>", streamed.size)),
    }
}
