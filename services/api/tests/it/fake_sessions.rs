//! Stands where the pooler stands: notes what it is asked and plays back events.

use std::sync::Mutex;

use async_trait::async_trait;
use domain::id::{InstanceId, ServerId};
use domain::session::{ExecutionName, PoolerId, SessionName};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecutionEvent, ExecutionFinished, ExecutionOutcome, Session};
use rpc::{pooler, query, server};
use secrecy::ExposeSecret as _;
use sessions::pools::{Asked, Pools};
use sessions::{EventStream, NotificationStream, Sessions, SlotStream, UserToken};
use tonic::Status;

/// What the pooler was asked, last.
#[derive(Debug, Default)]
pub struct FakeSessions {
    pub tokens: Mutex<Vec<String>>,
    pub opened: Mutex<Option<query::v1::OpenSessionRequest>>,
    pub executed: Mutex<Option<query::v1::ExecuteRequest>>,
    pub ran: Mutex<Option<pooler::v1::RunScriptRequest>>,
    pub copied: Mutex<Vec<query::v1::CopyInRequest>>,
    pub sessions: Mutex<Vec<Session>>,
    /// The servers that were to be inspected, and whose role there.
    pub inspected: Mutex<Vec<(String, server::v1::CredentialKind)>>,
    /// What poolers show.
    pub shown: Mutex<pooler::v1::ShowPoolerResponse>,
    /// Poolers that do not answer.
    pub silent: Mutex<Vec<PoolerId>>,
    /// Whether what is to be killed is there.
    pub found: Mutex<bool>,
    /// What administrators had done, in words.
    pub commands: Mutex<Vec<String>>,
    /// What executions play back.
    pub events: Mutex<Vec<ExecutionEvent>>,
}

impl FakeSessions {
    /// Sets what executions play back; `finished` follows by itself.
    pub fn play(&self, kinds: Vec<Kind>) {
        let finished = ExecutionFinished {
            outcome: ExecutionOutcome::Succeeded.into(),
            ..ExecutionFinished::default()
        };
        let kinds = kinds.into_iter().chain([Kind::Finished(finished)]);
        let events = kinds.zip(1..).map(|(kind, sequence)| ExecutionEvent {
            sequence,
            kind: Some(kind),
        });
        *self.events.lock().unwrap() = events.collect();
    }

    fn note(&self, token: &UserToken) {
        self.tokens
            .lock()
            .unwrap()
            .push(token.0.expose_secret().to_owned());
    }

    fn stream(&self) -> EventStream {
        let events = self.events.lock().unwrap().clone();
        stream::iter(
            events
                .into_iter()
                .map(|event| Ok(EncodedEvents::encode(vec![event]))),
        )
        .boxed()
    }
}

fn absent<T>() -> Result<T, Status> {
    Err(rpc::error::plain(
        tonic::Code::NotFound,
        rpc::errors::v1::ErrorReason::ResourceNotFound,
        "there is no such session",
    ))
}

#[async_trait]
impl Sessions for FakeSessions {
    async fn open_session(
        &self,
        token: &UserToken,
        _: InstanceId,
        request: query::v1::OpenSessionRequest,
    ) -> Result<Session, Status> {
        self.note(token);
        *self.opened.lock().unwrap() = Some(request);
        Ok(Session::default())
    }

    async fn get_session(&self, token: &UserToken, name: SessionName) -> Result<Session, Status> {
        self.note(token);
        let sessions = self.sessions.lock().unwrap();
        sessions
            .iter()
            .find(|session| session.name == name.to_string())
            .cloned()
            .map_or_else(absent, Ok)
    }

    async fn list_sessions(&self, token: &UserToken, _: Option<ServerId>) -> Result<Vec<Session>, Status> {
        self.note(token);
        Ok(self.sessions.lock().unwrap().clone())
    }

    async fn keep_session_alive(&self, _: &UserToken, _: SessionName) -> Result<Session, Status> {
        absent()
    }

    async fn close_session(&self, _: &UserToken, _: SessionName) -> Result<(), Status> {
        absent()
    }

    async fn execute(
        &self,
        token: &UserToken,
        _: SessionName,
        request: query::v1::ExecuteRequest,
    ) -> Result<EventStream, Status> {
        self.note(token);
        *self.executed.lock().unwrap() = Some(request);
        Ok(self.stream())
    }

    async fn resume_execution(
        &self,
        token: &UserToken,
        _: ExecutionName,
        _: i64,
    ) -> Result<EventStream, Status> {
        self.note(token);
        Ok(self.stream())
    }

    async fn fetch_more(
        &self,
        token: &UserToken,
        _: ExecutionName,
        _: query::v1::FetchMoreRequest,
    ) -> Result<EventStream, Status> {
        self.note(token);
        Ok(self.stream())
    }

    async fn run_script(
        &self,
        token: &UserToken,
        _: InstanceId,
        request: pooler::v1::RunScriptRequest,
    ) -> Result<EventStream, Status> {
        self.note(token);
        *self.ran.lock().unwrap() = Some(request);
        Ok(self.stream())
    }

    async fn get_execution(&self, _: &UserToken, _: ExecutionName) -> Result<query::v1::Execution, Status> {
        absent()
    }

    async fn get_last_execution(
        &self,
        _: &UserToken,
        _: SessionName,
    ) -> Result<query::v1::Execution, Status> {
        absent()
    }

    async fn get_transaction_outcome(
        &self,
        _: &UserToken,
        _: InstanceId,
        _: query::v1::GetTransactionOutcomeRequest,
    ) -> Result<query::v1::GetTransactionOutcomeResponse, Status> {
        absent()
    }

    async fn cancel_execution(&self, _: &UserToken, _: ExecutionName) -> Result<(), Status> {
        absent()
    }

    async fn begin_transaction(
        &self,
        _: &UserToken,
        _: SessionName,
        _: query::v1::BeginTransactionRequest,
    ) -> Result<Session, Status> {
        absent()
    }

    async fn commit_transaction(
        &self,
        _: &UserToken,
        _: SessionName,
    ) -> Result<query::v1::CommitTransactionResponse, Status> {
        absent()
    }

    async fn rollback_transaction(&self, _: &UserToken, _: SessionName) -> Result<Session, Status> {
        absent()
    }

    async fn watch_session(&self, _: &UserToken, _: SessionName) -> Result<NotificationStream, Status> {
        absent()
    }

    async fn copy_in(
        &self,
        token: &UserToken,
        _: SessionName,
        requests: BoxStream<'static, Result<query::v1::CopyInRequest, Status>>,
    ) -> Result<query::v1::CopyInResponse, Status> {
        self.note(token);
        let requests = requests.try_collect().await?;
        *self.copied.lock().unwrap() = requests;
        Ok(query::v1::CopyInResponse::default())
    }

    async fn test_server(
        &self,
        token: &UserToken,
        instance: InstanceId,
        _: server::v1::TestServerRequest,
    ) -> Result<server::v1::TestServerResponse, Status> {
        self.note(token);
        let instance = format!("instances/{instance}");
        Ok(server::v1::TestServerResponse {
            instance,
            ..Default::default()
        })
    }

    async fn inspect_server(
        &self,
        token: &UserToken,
        _: InstanceId,
        request: server::v1::InspectServerRequest,
    ) -> Result<server::v1::InspectServerResponse, Status> {
        self.note(token);
        let looked_at = (request.name.clone(), request.credential());
        self.inspected.lock().unwrap().push(looked_at);
        Ok(server::v1::InspectServerResponse {
            inspection: Some(server::v1::Inspection {
                server: request.name,
                database: request.database,
                ..Default::default()
            }),
        })
    }

    async fn lease_slots(
        &self,
        _: InstanceId,
        _: pooler::v1::LeaseSlotsRequest,
    ) -> Result<SlotStream, Status> {
        absent()
    }
}

impl FakeSessions {
    fn asked<T>(&self, answer: T) -> Asked<T> {
        Asked {
            answers: vec![answer],
            unreachable: self.silent.lock().unwrap().clone(),
        }
    }

    fn command(&self, command: String) {
        self.commands.lock().unwrap().push(command);
    }
}

#[async_trait]
impl Pools for FakeSessions {
    async fn show(
        &self,
        token: &UserToken,
        _: pooler::v1::Section,
    ) -> Result<Asked<pooler::v1::ShowPoolerResponse>, Status> {
        self.note(token);
        Ok(self.asked(self.shown.lock().unwrap().clone()))
    }

    async fn refresh_instance(&self, token: &UserToken, instance: InstanceId) -> Result<Asked<()>, Status> {
        self.note(token);
        self.command(format!("refresh {instance}"));
        Ok(self.asked(()))
    }

    async fn reconnect_instance(
        &self,
        token: &UserToken,
        instance: InstanceId,
    ) -> Result<Asked<usize>, Status> {
        self.note(token);
        self.command(format!("reconnect {instance}"));
        Ok(self.asked(3))
    }

    async fn drain_pooler(&self, token: &UserToken, pooler: PoolerId) -> Result<(), Status> {
        self.note(token);
        self.command(format!("drain {pooler}"));
        Ok(())
    }

    async fn kill_session(&self, token: &UserToken, name: SessionName) -> Result<Asked<bool>, Status> {
        self.note(token);
        self.command(format!("kill {name}"));
        Ok(self.asked(*self.found.lock().unwrap()))
    }

    async fn kill_backend(
        &self,
        token: &UserToken,
        instance: InstanceId,
        process_id: i32,
    ) -> Result<Asked<bool>, Status> {
        self.note(token);
        self.command(format!("kill {instance} {process_id}"));
        Ok(self.asked(*self.found.lock().unwrap()))
    }
}
