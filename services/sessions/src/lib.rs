//! The seam between those who use query sessions (API, worker) and the pooler that holds them.
//!
//! [`Sessions`] has two implementations: the pooler itself, for a process that runs every role, and [`client::PoolerClient`],
//! which finds the right pooler through a [`directory::Directory`] and speaks gRPC to it. Both look alike to their callers,
//! errors included: a pooler's status, with its details, reaches the caller unchanged.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod client;
pub mod directory;
pub mod peers;
pub mod pools;

use async_trait::async_trait;
use domain::id::{InstanceId, ServerId};
use domain::session::{ExecutionName, SessionName};
use futures::stream::BoxStream;
use rpc::events::EncodedEvents;
use rpc::{pooler, query, server};
use secrecy::SecretString;
use tonic::Status;

/// The user's own token, as it came with the call. The pooler verifies it: it does not take the API's word for who calls.
#[derive(Debug, Clone)]
pub struct UserToken(pub SecretString);

/// What happens in an execution, encoded.
pub type EventStream = BoxStream<'static, Result<EncodedEvents, Status>>;

/// What a session is notified of.
pub type NotificationStream = BoxStream<'static, Result<query::v1::WatchSessionResponse, Status>>;

/// How a wish for slots goes on; dropping it gives the slots back.
pub type SlotStream = BoxStream<'static, Result<pooler::v1::LeaseSlotsResponse, Status>>;

/// Query sessions, wherever they are held. Errors are as documented in `proto/pgmoor/query/v1/query_service.proto`.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Opens a session on a server of `instance`.
    async fn open_session(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: query::v1::OpenSessionRequest,
    ) -> Result<query::v1::Session, Status>;

    /// Reads a session.
    async fn get_session(&self, token: &UserToken, name: SessionName) -> Result<query::v1::Session, Status>;

    /// The caller's sessions, on one server or on all, by name.
    async fn list_sessions(
        &self,
        token: &UserToken,
        server: Option<ServerId>,
    ) -> Result<Vec<query::v1::Session>, Status>;

    /// Puts off a session's idle limit.
    async fn keep_session_alive(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status>;

    /// Closes a session.
    async fn close_session(&self, token: &UserToken, name: SessionName) -> Result<(), Status>;

    /// Runs a script in a session. Everything that settings decide is filled in already.
    async fn execute(
        &self,
        token: &UserToken,
        name: SessionName,
        request: query::v1::ExecuteRequest,
    ) -> Result<EventStream, Status>;

    /// Goes on with a suspended execution.
    async fn fetch_more(
        &self,
        token: &UserToken,
        name: ExecutionName,
        request: query::v1::FetchMoreRequest,
    ) -> Result<EventStream, Status>;

    /// Runs a script without a session.
    async fn run_script(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: pooler::v1::RunScriptRequest,
    ) -> Result<EventStream, Status>;

    /// Goes on reading what an execution says, after the event of that number.
    async fn resume_execution(
        &self,
        token: &UserToken,
        name: ExecutionName,
        after: i64,
    ) -> Result<EventStream, Status>;

    /// Reads how an execution stands.
    async fn get_execution(
        &self,
        token: &UserToken,
        name: ExecutionName,
    ) -> Result<query::v1::Execution, Status>;

    /// Reads how a session's last execution stands.
    async fn get_last_execution(
        &self,
        token: &UserToken,
        session: SessionName,
    ) -> Result<query::v1::Execution, Status>;

    /// Asks a server of `instance` what became of a transaction.
    async fn get_transaction_outcome(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: query::v1::GetTransactionOutcomeRequest,
    ) -> Result<query::v1::GetTransactionOutcomeResponse, Status>;

    /// Asks for an execution to be cancelled.
    async fn cancel_execution(&self, token: &UserToken, name: ExecutionName) -> Result<(), Status>;

    /// Begins a transaction block.
    async fn begin_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
        request: query::v1::BeginTransactionRequest,
    ) -> Result<query::v1::Session, Status>;

    /// Commits the transaction block.
    async fn commit_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::CommitTransactionResponse, Status>;

    /// Rolls the transaction block back.
    async fn rollback_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status>;

    /// Follows a session's notifications.
    async fn watch_session(&self, token: &UserToken, name: SessionName)
    -> Result<NotificationStream, Status>;

    /// Runs one COPY from the stream of its data. `name` is the session its first message names.
    async fn copy_in(
        &self,
        token: &UserToken,
        name: SessionName,
        requests: BoxStream<'static, Result<query::v1::CopyInRequest, Status>>,
    ) -> Result<query::v1::CopyInResponse, Status>;

    /// Looks what a server's role may do.
    async fn inspect_server(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: server::v1::InspectServerRequest,
    ) -> Result<server::v1::InspectServerResponse, Status>;

    /// Connects to a server once and reports what was found.
    async fn test_server(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: server::v1::TestServerRequest,
    ) -> Result<server::v1::TestServerResponse, Status>;

    /// Asks for connections out of an instance's budget, for a worker's programs.
    async fn lease_slots(
        &self,
        instance: InstanceId,
        request: pooler::v1::LeaseSlotsRequest,
    ) -> Result<SlotStream, Status>;
}
