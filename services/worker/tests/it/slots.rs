//! A pooler that only gives slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use async_trait::async_trait;
use domain::id::{InstanceId, ServerId};
use domain::session::{ExecutionName, SessionName};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use rpc::pooler::v1::lease_slots_response::Kind;
use rpc::pooler::v1::{LeaseSlotsRequest, LeaseSlotsResponse, RunScriptRequest};
use rpc::{query, server};
use sessions::{EventStream, NotificationStream, Sessions, SlotStream, UserToken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Slots that are given while there are some, and counted.
#[derive(Debug)]
pub(crate) struct SlotGiver {
    free: Arc<Semaphore>,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    now: AtomicI32,
    most: AtomicI32,
}

/// Slots of one stream; dropped with it.
struct Lease {
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SlotGiver {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(slots)),
            held: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> i32 {
        self.held.now.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> i32 {
        self.held.most.load(Ordering::SeqCst)
    }
}

fn response(kind: Kind) -> Result<LeaseSlotsResponse, Status> {
    Ok(LeaseSlotsResponse { kind: Some(kind) })
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("a worker asks for slots only"))
}

#[async_trait]
impl Sessions for SlotGiver {
    async fn lease_slots(&self, _: InstanceId, request: LeaseSlotsRequest) -> Result<SlotStream, Status> {
        assert!(
            request.count == 1 && request.operation.starts_with("operations/"),
            "{request:?}"
        );
        let (free, held) = (Arc::clone(&self.free), Arc::clone(&self.held));
        let granted = async move {
            let permit = free
                .acquire_owned()
                .await
                .map_err(|_| Status::unavailable("closed"))?;
            let now = held.now.fetch_add(1, Ordering::SeqCst) + 1;
            held.most.fetch_max(now, Ordering::SeqCst);
            Ok::<_, Status>(Lease {
                held,
                _permit: permit,
            })
        };
        let waiting = stream::once(async { response(Kind::QueuePosition(1)) });
        let given = granted.into_stream().flat_map(|lease| match lease {
            Ok(lease) => stream::once(async { response(Kind::Granted(true)) })
                .chain(stream::once(async move {
                    let _lease = lease;
                    futures::future::pending().await
                }))
                .boxed(),
            Err(status) => stream::once(async { Err(status) }).boxed(),
        });
        Ok(waiting.chain(given).boxed())
    }

    async fn open_session(
        &self,
        _: &UserToken,
        _: InstanceId,
        _: query::v1::OpenSessionRequest,
    ) -> Result<query::v1::Session, Status> {
        not_here()
    }

    async fn get_session(&self, _: &UserToken, _: SessionName) -> Result<query::v1::Session, Status> {
        not_here()
    }

    async fn list_sessions(
        &self,
        _: &UserToken,
        _: Option<ServerId>,
    ) -> Result<Vec<query::v1::Session>, Status> {
        not_here()
    }

    async fn keep_session_alive(&self, _: &UserToken, _: SessionName) -> Result<query::v1::Session, Status> {
        not_here()
    }

    async fn close_session(&self, _: &UserToken, _: SessionName) -> Result<(), Status> {
        not_here()
    }

    async fn execute(
        &self,
        _: &UserToken,
        _: SessionName,
        _: query::v1::ExecuteRequest,
    ) -> Result<EventStream, Status> {
        not_here()
    }

    async fn resume_execution(&self, _: &UserToken, _: ExecutionName, _: i64) -> Result<EventStream, Status> {
        not_here()
    }

    async fn fetch_more(
        &self,
        _: &UserToken,
        _: ExecutionName,
        _: query::v1::FetchMoreRequest,
    ) -> Result<EventStream, Status> {
        not_here()
    }

    async fn run_script(
        &self,
        _: &UserToken,
        _: InstanceId,
        _: RunScriptRequest,
    ) -> Result<EventStream, Status> {
        not_here()
    }

    async fn get_execution(&self, _: &UserToken, _: ExecutionName) -> Result<query::v1::Execution, Status> {
        not_here()
    }

    async fn get_last_execution(
        &self,
        _: &UserToken,
        _: SessionName,
    ) -> Result<query::v1::Execution, Status> {
        not_here()
    }

    async fn get_transaction_outcome(
        &self,
        _: &UserToken,
        _: InstanceId,
        _: query::v1::GetTransactionOutcomeRequest,
    ) -> Result<query::v1::GetTransactionOutcomeResponse, Status> {
        not_here()
    }

    async fn cancel_execution(&self, _: &UserToken, _: ExecutionName) -> Result<(), Status> {
        not_here()
    }

    async fn begin_transaction(
        &self,
        _: &UserToken,
        _: SessionName,
        _: query::v1::BeginTransactionRequest,
    ) -> Result<query::v1::Session, Status> {
        not_here()
    }

    async fn commit_transaction(
        &self,
        _: &UserToken,
        _: SessionName,
    ) -> Result<query::v1::CommitTransactionResponse, Status> {
        not_here()
    }

    async fn rollback_transaction(
        &self,
        _: &UserToken,
        _: SessionName,
    ) -> Result<query::v1::Session, Status> {
        not_here()
    }

    async fn watch_session(&self, _: &UserToken, _: SessionName) -> Result<NotificationStream, Status> {
        not_here()
    }

    async fn copy_in(
        &self,
        _: &UserToken,
        _: SessionName,
        _: BoxStream<'static, Result<query::v1::CopyInRequest, Status>>,
    ) -> Result<query::v1::CopyInResponse, Status> {
        not_here()
    }

    async fn inspect_server(
        &self,
        _: &UserToken,
        _: InstanceId,
        _: server::v1::InspectServerRequest,
    ) -> Result<server::v1::InspectServerResponse, Status> {
        not_here()
    }

    async fn test_server(
        &self,
        _: &UserToken,
        _: InstanceId,
        _: server::v1::TestServerRequest,
    ) -> Result<server::v1::TestServerResponse, Status> {
        not_here()
    }
}
