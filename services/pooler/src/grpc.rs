//! The pooler behind the internal gRPC service.
//!
//! User calls are taken from API instances only, and carry the user's own token; slots are leased to workers only.

mod administration;
mod credentialed;

use std::pin::Pin;

use ::sessions::{Sessions, UserToken};
use auth::AuthError;
use domain::access::Permission;
use domain::id::InstanceId;
use domain::session::InvalidSessionName;
use futures::{Stream, StreamExt as _};
use rpc::events::EncodedEvents;
use rpc::pooler::v1::pooler_service_server::{PoolerService, PoolerServiceServer};
use rpc::pooler::v1::{
    BeginTransactionRequest, BeginTransactionResponse, CancelExecutionRequest, CancelExecutionResponse,
    CloseSessionRequest, CloseSessionResponse, CommitTransactionRequest, CommitTransactionResponse,
    CopyInRequest, CopyInResponse, ExecuteRequest, FetchMoreRequest, GetExecutionRequest,
    GetExecutionResponse, GetSessionRequest, GetSessionResponse, GetTransactionOutcomeRequest,
    GetTransactionOutcomeResponse, InspectServerRequest, InspectServerResponse, KeepSessionAliveRequest,
    KeepSessionAliveResponse, LeaseSlotsRequest, LeaseSlotsResponse, ListSessionsRequest,
    ListSessionsResponse, OpenSessionRequest, OpenSessionResponse, RelinquishRequest, RelinquishResponse,
    ResumeExecutionRequest, RollbackTransactionRequest, RollbackTransactionResponse, RunScriptRequest,
    TestServerRequest, TestServerResponse, WatchSessionRequest, WatchSessionResponse,
};
use rpc::query::v1::copy_in_request::Kind as CopyInKind;
use secrecy::SecretString;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

pub use self::administration::{AdministrationGrpc, administration};
pub use self::credentialed::Credentialed;
use crate::error::PoolerError;
use crate::peer::{PeerPolicy, PeerRole, Peers};
use crate::pooler::Pooler;
use crate::request::invalid;

/// A script of 16 MiB, its parameters and its COPY data have to fit.
const MOST_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// The service, ready to be added to a tonic server.
#[must_use]
pub fn service(pooler: Pooler, policy: PeerPolicy) -> PoolerServiceServer<PoolerGrpc> {
    PoolerServiceServer::new(PoolerGrpc {
        pooler,
        peers: Peers::new(policy),
    })
    .max_decoding_message_size(MOST_REQUEST_BYTES)
}

/// A [`Pooler`] as a gRPC service. Made by [`service`].
#[derive(Debug)]
pub struct PoolerGrpc {
    pooler: Pooler,
    peers: Peers,
}

impl PoolerGrpc {
    /// The user's token, from a peer that may pass one on.
    fn token<T>(&self, request: &Request<T>) -> Result<UserToken, Status> {
        if !self.peers.has_role(request, PeerRole::Api) {
            return Err(denied(Permission::SessionsUse));
        }
        bearer(request.metadata()).ok_or_else(|| AuthError::CredentialsMissing.into())
    }
}

fn denied(permission: Permission) -> Status {
    AuthError::PermissionMissing { permission }.into()
}

fn bearer(metadata: &MetadataMap) -> Option<UserToken> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| UserToken(SecretString::from(token)))
}

fn name<T: std::str::FromStr<Err = InvalidSessionName>>(
    field: &'static str,
    text: &str,
) -> Result<T, PoolerError> {
    text.parse()
        .map_err(|error: InvalidSessionName| invalid(field, error.to_string()))
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, PoolerError> {
    value.ok_or_else(|| invalid(field, "must be given"))
}

/// The instance is the router's business: the pooler itself reads it from the server's registration.
const ANY_INSTANCE: InstanceId = InstanceId::from_uuid(uuid::Uuid::nil());

#[tonic::async_trait]
impl PoolerService for PoolerGrpc {
    type ExecuteStream = Credentialed<EncodedEvents>;
    type ResumeExecutionStream = Self::ExecuteStream;
    type FetchMoreStream = Self::ExecuteStream;
    type RunScriptStream = Self::ExecuteStream;
    type WatchSessionStream = Credentialed<WatchSessionResponse>;
    type LeaseSlotsStream = Pin<Box<dyn Stream<Item = Result<LeaseSlotsResponse, Status>> + Send>>;

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let session = Sessions::open_session(&self.pooler, &token, ANY_INSTANCE, request).await?;
        Ok(Response::new(OpenSessionResponse {
            session: Some(session),
        }))
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let token = self.token(&request)?;
        let session = self
            .pooler
            .get_session(&token, name("name", &request.get_ref().name)?)
            .await?;
        Ok(Response::new(GetSessionResponse {
            session: Some(session),
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let token = self.token(&request)?;
        let server = match request.get_ref().parent.as_str() {
            "servers/-" => None,
            parent => {
                let id = parent.strip_prefix("servers/").and_then(|id| id.parse().ok());
                Some(required("parent", id)?)
            }
        };
        let sessions = self.pooler.list_sessions(&token, server).await?;
        Ok(Response::new(ListSessionsResponse { sessions }))
    }

    async fn keep_session_alive(
        &self,
        request: Request<KeepSessionAliveRequest>,
    ) -> Result<Response<KeepSessionAliveResponse>, Status> {
        let token = self.token(&request)?;
        let session = self
            .pooler
            .keep_session_alive(&token, name("name", &request.get_ref().name)?)
            .await?;
        Ok(Response::new(KeepSessionAliveResponse {
            session: Some(session),
        }))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let token = self.token(&request)?;
        self.pooler
            .close_session(&token, name("name", &request.get_ref().name)?)
            .await?;
        Ok(Response::new(CloseSessionResponse {}))
    }

    async fn resume_execution(
        &self,
        request: Request<ResumeExecutionRequest>,
    ) -> Result<Response<Self::ResumeExecutionStream>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let name = name("name", &request.name)?;
        let events = self.pooler.resume_execution(&token, name, request.after_sequence);
        self.credentialed(&token, events.await?).await
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let session = name("session", &request.session)?;
        let events = self.pooler.execute(&token, session, request).await?;
        self.credentialed(&token, events).await
    }

    async fn fetch_more(
        &self,
        request: Request<FetchMoreRequest>,
    ) -> Result<Response<Self::FetchMoreStream>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let execution = name("execution", &request.execution)?;
        let events = self.pooler.fetch_more(&token, execution, request).await?;
        self.credentialed(&token, events).await
    }

    async fn run_script(
        &self,
        request: Request<RunScriptRequest>,
    ) -> Result<Response<Self::RunScriptStream>, Status> {
        let token = self.token(&request)?;
        let request = request.into_inner();
        let events = Sessions::run_script(&self.pooler, &token, ANY_INSTANCE, request).await?;
        self.credentialed(&token, events).await
    }

    async fn get_execution(
        &self,
        request: Request<GetExecutionRequest>,
    ) -> Result<Response<GetExecutionResponse>, Status> {
        let token = self.token(&request)?;
        let asked = &request.get_ref().name;
        let execution = match asked.strip_suffix("/executions/-") {
            Some(session) => {
                let session = name("name", session)?;
                self.pooler.get_last_execution(&token, session).await?
            }
            None => self.pooler.get_execution(&token, name("name", asked)?).await?,
        };
        Ok(Response::new(GetExecutionResponse {
            execution: Some(execution),
        }))
    }

    async fn get_transaction_outcome(
        &self,
        request: Request<GetTransactionOutcomeRequest>,
    ) -> Result<Response<GetTransactionOutcomeResponse>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let response = Sessions::get_transaction_outcome(&self.pooler, &token, ANY_INSTANCE, request).await?;
        Ok(Response::new(GetTransactionOutcomeResponse {
            response: Some(response),
        }))
    }

    async fn cancel_execution(
        &self,
        request: Request<CancelExecutionRequest>,
    ) -> Result<Response<CancelExecutionResponse>, Status> {
        let token = self.token(&request)?;
        self.pooler
            .cancel_execution(&token, name("name", &request.get_ref().name)?)
            .await?;
        Ok(Response::new(CancelExecutionResponse {}))
    }

    async fn begin_transaction(
        &self,
        request: Request<BeginTransactionRequest>,
    ) -> Result<Response<BeginTransactionResponse>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let session = name("session", &request.session)?;
        let session = self.pooler.begin_transaction(&token, session, request).await?;
        Ok(Response::new(BeginTransactionResponse {
            session: Some(session),
        }))
    }

    async fn commit_transaction(
        &self,
        request: Request<CommitTransactionRequest>,
    ) -> Result<Response<CommitTransactionResponse>, Status> {
        let token = self.token(&request)?;
        let session = name("session", &request.get_ref().session)?;
        let response = self.pooler.commit_transaction(&token, session).await?;
        Ok(Response::new(CommitTransactionResponse {
            response: Some(response),
        }))
    }

    async fn rollback_transaction(
        &self,
        request: Request<RollbackTransactionRequest>,
    ) -> Result<Response<RollbackTransactionResponse>, Status> {
        let token = self.token(&request)?;
        let session = name("session", &request.get_ref().session)?;
        let session = self.pooler.rollback_transaction(&token, session).await?;
        Ok(Response::new(RollbackTransactionResponse {
            session: Some(session),
        }))
    }

    async fn watch_session(
        &self,
        request: Request<WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        let token = self.token(&request)?;
        let session = name("session", &request.get_ref().session)?;
        let watched = self.pooler.watch_session(&token, session).await?;
        let responses = watched.map(|response| {
            Ok(WatchSessionResponse {
                response: Some(response?),
            })
        });
        self.credentialed(&token, responses.boxed()).await
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<CopyInRequest>>,
    ) -> Result<Response<CopyInResponse>, Status> {
        let token = self.token(&request)?;
        let mut requests = request
            .into_inner()
            .map(|request| Ok(required("request", request?.request)?))
            .boxed();
        let first = requests.next().await.transpose()?;
        let Some(CopyInKind::Start(start)) = first.as_ref().and_then(|first| first.kind.as_ref()) else {
            return Err(invalid("request.start", "the first message must have it").into());
        };
        let session = name("request.start.session", &start.session)?;
        let requests = futures::stream::iter(first.map(Ok)).chain(requests).boxed();
        let response = Sessions::copy_in(&self.pooler, &token, session, requests).await?;
        Ok(Response::new(CopyInResponse {
            response: Some(response),
        }))
    }

    async fn test_server(
        &self,
        request: Request<TestServerRequest>,
    ) -> Result<Response<TestServerResponse>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let response = Sessions::test_server(&self.pooler, &token, ANY_INSTANCE, request).await?;
        Ok(Response::new(TestServerResponse {
            response: Some(response),
        }))
    }

    async fn inspect_server(
        &self,
        request: Request<InspectServerRequest>,
    ) -> Result<Response<InspectServerResponse>, Status> {
        let token = self.token(&request)?;
        let request = required("request", request.into_inner().request)?;
        let response = Sessions::inspect_server(&self.pooler, &token, ANY_INSTANCE, request).await?;
        Ok(Response::new(InspectServerResponse {
            response: Some(response),
        }))
    }

    async fn lease_slots(
        &self,
        request: Request<LeaseSlotsRequest>,
    ) -> Result<Response<Self::LeaseSlotsStream>, Status> {
        if !self.peers.has_role(&request, PeerRole::Worker) {
            return Err(denied(Permission::SlotsLease));
        }
        let request = request.into_inner();
        let instance = required("instance", instance_id(&request.instance))?;
        Sessions::lease_slots(&self.pooler, instance, request)
            .await
            .map(|stream| Response::new(stream as _))
    }

    async fn relinquish(
        &self,
        request: Request<RelinquishRequest>,
    ) -> Result<Response<RelinquishResponse>, Status> {
        if !self.peers.has_role(&request, PeerRole::Pooler) {
            return Err(denied(Permission::InstancesOwn));
        }
        let request = request.into_inner();
        let instance = required("instance", instance_id(&request.instance))?;
        let term = required("term", u64::try_from(request.term).ok())?;
        let incarnation = self.pooler.incarnation().to_string();
        let connections = if request.incarnation == incarnation {
            self.pooler.relinquish(instance, term).await?
        } else {
            0
        };
        Ok(Response::new(RelinquishResponse {
            incarnation,
            connections: connections.into(),
        }))
    }
}

fn instance_id(name: &str) -> Option<InstanceId> {
    name.strip_prefix("instances/").and_then(|id| id.parse().ok())
}
