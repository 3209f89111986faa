//! Query sessions and executions: every call goes to the pooler that holds the session, with the caller's own
//! token.
//!
//! Invariant: Execute reads no database and decodes no event; what settings decide comes from the cache, what
//! happens comes as the pooler's bytes.

mod copy_in;
mod execute;
mod executions;
mod fetch_more;
mod get_transaction_outcome;
mod open_session;
mod result;
mod run_query;
pub(crate) mod script;
mod sessions;
mod transactions;
mod watch_session;

use std::sync::Arc;

use rpc::events::EncodedEvents;
use rpc::query::v1 as proto;
use rpc::query::v1::query_service_server::QueryService;
use tonic::{Request, Response, Status, Streaming};

use crate::context::Context;
use crate::rpcs::rpcs;
use crate::upheld::Upheld;

/// Serves `pgmoor.query.v1.QueryService`.
#[derive(Debug)]
pub(crate) struct QueryRpcs(pub(crate) Arc<Context>);

rpcs! {
    QueryService for QueryRpcs {
        open_session::open_session(OpenSessionRequest) -> OpenSessionResponse;
        sessions::get_session(GetSessionRequest) -> GetSessionResponse;
        sessions::list_sessions(ListSessionsRequest) -> ListSessionsResponse;
        sessions::keep_session_alive(KeepSessionAliveRequest) -> KeepSessionAliveResponse;
        sessions::close_session(CloseSessionRequest) -> CloseSessionResponse;
        run_query::run_query(RunQueryRequest) -> RunQueryResponse;
        executions::get_execution(GetExecutionRequest) -> GetExecutionResponse;
        get_transaction_outcome::get_transaction_outcome(GetTransactionOutcomeRequest) -> GetTransactionOutcomeResponse;
        executions::cancel_execution(CancelExecutionRequest) -> CancelExecutionResponse;
        transactions::begin_transaction(BeginTransactionRequest) -> BeginTransactionResponse;
        transactions::commit_transaction(CommitTransactionRequest) -> CommitTransactionResponse;
        transactions::rollback_transaction(RollbackTransactionRequest) -> RollbackTransactionResponse;
    }

    type ExecuteStream = Upheld<EncodedEvents>;

    async fn execute(
        &self,
        request: Request<proto::ExecuteRequest>,
    ) -> Result<Response<Upheld<EncodedEvents>>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(execute::execute(&self.0, call).await)
    }

    type ResumeExecutionStream = Upheld<EncodedEvents>;

    async fn resume_execution(
        &self,
        request: Request<proto::ResumeExecutionRequest>,
    ) -> Result<Response<Upheld<EncodedEvents>>, Status> {
        let call = self.0.call(request)?;
        self.0
            .answer(executions::resume_execution(&self.0, call).await)
    }

    type FetchMoreStream = Upheld<EncodedEvents>;

    async fn fetch_more(
        &self,
        request: Request<proto::FetchMoreRequest>,
    ) -> Result<Response<Upheld<EncodedEvents>>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(fetch_more::fetch_more(&self.0, call).await)
    }

    type WatchSessionStream = Upheld<proto::WatchSessionResponse>;

    async fn watch_session(
        &self,
        request: Request<proto::WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(watch_session::watch_session(&self.0, call).await)
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<proto::CopyInRequest>>,
    ) -> Result<Response<proto::CopyInResponse>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(copy_in::copy_in(&self.0, call).await)
    }
}
