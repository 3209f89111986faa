use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rpc::errors::v1::ErrorReason;
use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::query_service_server::QueryService;
use rpc::query::v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::{Service, State, not_offered};

pub const SESSION: &str = "servers/3/sessions/s1";
const EXECUTION: &str = "servers/3/sessions/s1/executions/e1";

fn session() -> Session {
    let mut session = Session {
        incarnation: 1,
        name: SESSION.into(),
        database: "wiki".into(),
        backend_pid: 7,
        ..Session::default()
    };
    session.set_transaction_status(TransactionStatus::Idle);
    session
}

fn event(kind: Kind) -> ExecutionEvent {
    ExecutionEvent {
        sequence: 1,
        kind: Some(kind),
    }
}

fn started() -> ExecutionEvent {
    event(Kind::Started(ExecutionStarted {
        execution: EXECUTION.into(),
        ..ExecutionStarted::default()
    }))
}

fn transaction() -> Transaction {
    Transaction {
        xid: 4711,
        ..Transaction::default()
    }
}

fn committing() -> ExecutionEvent {
    event(Kind::Committing(TransactionCommitting {
        transaction: Some(transaction()),
        ..TransactionCommitting::default()
    }))
}

fn columns() -> ExecutionEvent {
    let column = |name: &str, type_name: &str| Column {
        name: name.into(),
        type_name: type_name.into(),
        ..Column::default()
    };
    let columns = vec![column("n", "int4"), column("t", "text")];
    event(Kind::Columns(ResultColumns {
        columns,
        ..ResultColumns::default()
    }))
}

fn rows(from: usize, to: usize) -> ExecutionEvent {
    let text = |text: String| Value {
        kind: Some(value::Kind::Text(text)),
    };
    let row = |n: usize| Row {
        values: vec![
            text(n.to_string()),
            Value {
                kind: Some(value::Kind::Null(true)),
            },
        ],
    };
    event(Kind::Rows(RowBatch {
        rows: (from..to).map(row).collect(),
    }))
}

fn completed(tag: &str) -> ExecutionEvent {
    event(Kind::StatementCompleted(StatementCompleted {
        command_tag: tag.into(),
        ..StatementCompleted::default()
    }))
}

fn finished(outcome: ExecutionOutcome) -> ExecutionEvent {
    let status = match outcome {
        ExecutionOutcome::Failed => TransactionStatus::Failed,
        _ => TransactionStatus::Idle,
    };
    finished_in(status, outcome)
}

fn finished_in(status: TransactionStatus, outcome: ExecutionOutcome) -> ExecutionEvent {
    let mut finished = ExecutionFinished::default();
    finished.set_outcome(outcome);
    finished.set_transaction_status(status);
    if status == TransactionStatus::InTransaction {
        finished.pins.push(PinReason::Transaction.into());
    }
    event(Kind::Finished(finished))
}

/// An error that points at the `x` in the script.
fn sql_error(sql: &str) -> ExecutionEvent {
    let before = sql.chars().take_while(|char| *char != 'x').count();
    let script_position = i32::try_from(before).unwrap() + 1;
    let message = ServerMessage {
        severity: "ERROR".into(),
        sqlstate: "42703".into(),
        message: "column \"x\" does not exist".into(),
        position: 8,
        ..ServerMessage::default()
    };
    event(Kind::SqlError(SqlError {
        message: Some(message),
        script_position,
        ..SqlError::default()
    }))
}

/// The last event before the answer of "go on" breaks off.
const BROKEN_AFTER: i64 = 3;

/// The events that come after that one.
fn numbered(after: i64, events: Vec<ExecutionEvent>) -> Vec<ExecutionEvent> {
    let numbers = after + 1..;
    let number = |(sequence, event)| ExecutionEvent { sequence, ..event };
    numbers.zip(events).map(number).collect()
}

type Events = mpsc::Sender<Result<EncodedEvents, Status>>;

/// What each script does.
async fn play(state: Arc<State>, sql: String, events: Events) {
    let send = async |these: Vec<ExecutionEvent>| events.send(Ok(EncodedEvents::encode(these))).await;
    let outcome = match sql.as_str() {
        "SELECT slowly" => {
            let _ = send(vec![started(), columns(), rows(0, 2)]).await;
            // More than the client holds back before it writes.
            for from in 0..300 {
                let _ = send(vec![rows(from * 1000, from * 1000 + 1000)]).await;
            }
            state.proceed.notified().await;
            send(vec![completed("SELECT 3"), finished(ExecutionOutcome::Succeeded)]).await
        }
        "BEGIN" => {
            let ended = finished_in(TransactionStatus::InTransaction, ExecutionOutcome::Succeeded);
            send(vec![started(), completed("BEGIN"), ended]).await
        }
        "lose the session" => {
            let lost = rpc::error::plain(
                Code::NotFound,
                ErrorReason::SessionStateLost,
                "the session is gone",
            );
            events.send(Err(lost)).await
        }
        "SELECT pg_sleep(100)" => {
            let message = ServerMessage {
                severity: "NOTICE".into(),
                message: "asleep".into(),
                ..ServerMessage::default()
            };
            let _ = send(vec![
                started(),
                event(Kind::Notice(Notice {
                    message: Some(message),
                })),
            ])
            .await;
            state.cancelled.notified().await;
            send(vec![finished(ExecutionOutcome::Cancelled)]).await
        }
        "SELECT by the page" => {
            let suspended = finished(ExecutionOutcome::Suspended);
            send(vec![started(), columns(), rows(0, 2), suspended]).await
        }
        "be recovered" => {
            send(vec![
                started(),
                completed("DONE"),
                finished(ExecutionOutcome::Succeeded),
            ])
            .await
        }
        "go on" => {
            let _ = send(numbered(0, vec![started(), columns(), rows(0, 2)])).await;
            events.send(Err(Status::unavailable("connection reset"))).await
        }
        "break off" => {
            let _ = send(vec![started(), columns(), rows(0, 2)]).await;
            events.send(Err(Status::unavailable("connection reset"))).await
        }
        "COMMIT" => {
            let _ = send(vec![started(), committing()]).await;
            events.send(Err(Status::unavailable("connection reset"))).await
        }
        "END" => send(vec![started(), committing(), finished(ExecutionOutcome::Lost)]).await,
        "endless" => {
            let message = ServerMessage {
                severity: "NOTICE".into(),
                message: "endless".into(),
                ..ServerMessage::default()
            };
            let _ = send(vec![
                started(),
                event(Kind::Notice(Notice {
                    message: Some(message),
                })),
                columns(),
            ])
            .await;
            while send(vec![rows(0, 1000)]).await.is_ok() {}
            return;
        }
        sql if sql.contains('x') => {
            let before = vec![started(), columns(), rows(1, 2), completed("SELECT 1")];
            let _ = send(before).await;
            send(vec![sql_error(sql), finished(ExecutionOutcome::Failed)]).await
        }
        _ => {
            let all = vec![
                started(),
                columns(),
                rows(1, 4),
                completed("SELECT 3"),
                completed("INSERT 0 1"),
                finished(ExecutionOutcome::Succeeded),
            ];
            send(all).await
        }
    };
    // Whoever listened may be gone.
    drop(outcome);
}

#[async_trait]
impl QueryService for Service {
    type ExecuteStream = Pin<Box<dyn Stream<Item = Result<EncodedEvents, Status>> + Send>>;
    type ResumeExecutionStream = Self::ExecuteStream;

    async fn resume_execution(
        &self,
        request: Request<ResumeExecutionRequest>,
    ) -> Result<Response<Self::ResumeExecutionStream>, Status> {
        self.0.admit(&request)?;
        self.0.counts.resume.fetch_add(1, Ordering::SeqCst);
        if request.get_ref().after_sequence != BROKEN_AFTER {
            let reason = ErrorReason::ResultExpired;
            return Err(rpc::error::plain(
                Code::FailedPrecondition,
                reason,
                "nothing is kept",
            ));
        }
        let rest = vec![
            rows(2, 4),
            completed("SELECT 4"),
            finished(ExecutionOutcome::Succeeded),
        ];
        let rest = EncodedEvents::encode(numbered(BROKEN_AFTER, rest));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(rest)))))
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.0.counts.open_session.fetch_add(1, Ordering::SeqCst);
        self.0.admit(&request)?;
        self.0.available()?;
        Ok(Response::new(OpenSessionResponse {
            session: Some(session()),
        }))
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        self.0.admit(&request)?;
        if request.get_ref().name != SESSION {
            return Err(rpc::error::plain(
                Code::NotFound,
                ErrorReason::ResourceNotFound,
                "no such session",
            ));
        }
        Ok(Response::new(GetSessionResponse {
            session: Some(session()),
        }))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        self.0.counts.close_session.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.get_ref().name, SESSION);
        Ok(Response::new(CloseSessionResponse {}))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        self.0.counts.execute.fetch_add(1, Ordering::SeqCst);
        self.0.admit(&request)?;
        let (sender, receiver) = mpsc::channel(2);
        let request = request.into_inner();
        let sql = request.script.unwrap().sql;
        if sql == "be recovered" && request.incarnation != 2 {
            return Err(rpc::error::status(
                Code::Aborted,
                ErrorReason::SessionRecovered,
                "the session was recovered",
                [("incarnation", "2")],
                tonic_types::ErrorDetails::new(),
            ));
        }
        let playing = play(Arc::clone(&self.0), sql, sender);
        // Polled together with the stream, so that it ends with its reader.
        let events = ReceiverStream::new(receiver);
        let both = futures::stream::select(
            events.map(Some),
            futures::stream::once(playing).map(|()| None::<Result<EncodedEvents, Status>>),
        );
        Ok(Response::new(Box::pin(both.filter_map(|message| message))))
    }

    type FetchMoreStream = Self::ExecuteStream;

    async fn fetch_more(
        &self,
        request: Request<FetchMoreRequest>,
    ) -> Result<Response<Self::FetchMoreStream>, Status> {
        assert_eq!(request.get_ref().execution, EXECUTION);
        let before = self.0.counts.fetch_more.fetch_add(1, Ordering::SeqCst);
        let events = if before == 0 {
            vec![rows(2, 4), finished(ExecutionOutcome::Suspended)]
        } else {
            vec![
                rows(4, 5),
                completed("SELECT 1"),
                finished(ExecutionOutcome::Succeeded),
            ]
        };
        let message = futures::stream::iter([Ok(EncodedEvents::encode(events))]);
        Ok(Response::new(Box::pin(message)))
    }

    async fn get_execution(
        &self,
        request: Request<GetExecutionRequest>,
    ) -> Result<Response<GetExecutionResponse>, Status> {
        assert_eq!(request.get_ref().name, EXECUTION);
        let mut execution = Execution {
            name: EXECUTION.into(),
            ..Execution::default()
        };
        execution.set_outcome(ExecutionOutcome::Cancelled);
        Ok(Response::new(GetExecutionResponse {
            execution: Some(execution),
        }))
    }

    async fn get_transaction_outcome(
        &self,
        request: Request<GetTransactionOutcomeRequest>,
    ) -> Result<Response<GetTransactionOutcomeResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.server, "servers/3");
        assert_eq!(request.transaction, Some(transaction()));
        let mut answer = GetTransactionOutcomeResponse::default();
        answer.set_outcome(CommitOutcome::Committed);
        Ok(Response::new(answer))
    }

    async fn cancel_execution(
        &self,
        request: Request<CancelExecutionRequest>,
    ) -> Result<Response<CancelExecutionResponse>, Status> {
        assert_eq!(request.get_ref().name, EXECUTION);
        self.0.counts.cancel.fetch_add(1, Ordering::SeqCst);
        self.0.cancelled.notify_one();
        Ok(Response::new(CancelExecutionResponse {}))
    }

    type WatchSessionStream = Pin<Box<dyn Stream<Item = Result<WatchSessionResponse, Status>> + Send>>;

    async fn watch_session(
        &self,
        _: Request<WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        Err(Status::unimplemented("not offered"))
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<CopyInRequest>>,
    ) -> Result<Response<CopyInResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.next().await {
            if let Some(copy_in_request::Kind::Data(data)) = message?.kind {
                self.0.received.lock().extend_from_slice(&data);
            }
        }
        let answer = CopyInResponse {
            command_tag: "COPY 2".into(),
            session: Some(session()),
            ..CopyInResponse::default()
        };
        Ok(Response::new(answer))
    }

    not_offered! {
        list_sessions(ListSessionsRequest) -> ListSessionsResponse;
        keep_session_alive(KeepSessionAliveRequest) -> KeepSessionAliveResponse;
        run_query(RunQueryRequest) -> RunQueryResponse;
        begin_transaction(BeginTransactionRequest) -> BeginTransactionResponse;
        commit_transaction(CommitTransactionRequest) -> CommitTransactionResponse;
        rollback_transaction(RollbackTransactionRequest) -> RollbackTransactionResponse;
    }
}
