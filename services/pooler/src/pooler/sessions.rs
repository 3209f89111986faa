//! The calls on sessions.

use std::sync::Arc;

use ::sessions::{EventStream, NotificationStream, Sessions, SlotStream, UserToken};
use async_trait::async_trait;
use domain::access::{Access, Caller, Permission};
use domain::id::{ExecutionId, InstanceId, ServerId};
use domain::session::{ExecutionName, SessionName};
use domain::sql::{StatementKind, classify};
use futures::StreamExt as _;
use futures::stream::{BoxStream, unfold};
use rpc::query::v1::copy_in_request::Kind as CopyInKind;
use rpc::query::v1::{
    BeginTransactionRequest, CommitTransactionResponse, CopyInRequest, CopyInResponse, ExecuteRequest,
    ExecutionOutcome, FetchMoreRequest, GetTransactionOutcomeRequest, GetTransactionOutcomeResponse,
    IsolationLevel, OpenSessionRequest, TransactionStatus,
};
use rpc::{pooler, query, server};
use telemetry::rpc::Id;
use tokio::sync::oneshot;
use tonic::Status;

use super::Pooler;
use crate::audited::Audited;
use crate::error::{Loss, LossCause, PoolerError, TargetError};
use crate::request::{self, invalid};
use crate::session::{Commit, CopySender, CopySource, Ended, Plan, PortalUse, Session, Work, copy_channel};

#[async_trait]
impl Sessions for Pooler {
    async fn open_session(
        &self,
        token: &UserToken,
        _instance: InstanceId,
        request: OpenSessionRequest,
    ) -> Result<query::v1::Session, Status> {
        Box::pin(self.open_session_audited(token, request)).await
    }

    async fn get_session(&self, token: &UserToken, name: SessionName) -> Result<query::v1::Session, Status> {
        Ok(self.session(token, name).await?.describe()?)
    }

    async fn list_sessions(
        &self,
        token: &UserToken,
        server: Option<ServerId>,
    ) -> Result<Vec<query::v1::Session>, Status> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        // One that ends at this moment is no longer listed.
        let sessions = self.0.registry.list(caller.user, server);
        Ok(sessions
            .iter()
            .filter_map(|session| session.describe().ok())
            .collect())
    }

    async fn keep_session_alive(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status> {
        let session = self.session(token, name).await?;
        session.keep_alive()?;
        Ok(session.describe()?)
    }

    async fn close_session(&self, token: &UserToken, name: SessionName) -> Result<(), Status> {
        match self.session(token, name).await {
            Ok(session) => {
                self.begin_close(&session, LossCause::Closed);
                session.ended().await;
                Ok(())
            }
            Err(PoolerError::StateLost(Loss {
                cause: LossCause::Closed,
                ..
            })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn execute(
        &self,
        token: &UserToken,
        name: SessionName,
        request: ExecuteRequest,
    ) -> Result<EventStream, Status> {
        let (caller, session) = self.called(token, name).await?;
        self.execute_in(&caller, &session, request).await
    }

    async fn resume_execution(
        &self,
        token: &UserToken,
        name: ExecutionName,
        after: i64,
    ) -> Result<EventStream, Status> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        // What was not read when the right to it ended is not read any more.
        if let Err(PoolerError::StateLost(loss)) = self.session(token, name.session).await
            && loss.cause == LossCause::AccessRevoked
        {
            return Err(PoolerError::StateLost(loss).into());
        }
        // Else also where the session has ended since, perhaps with its connection.
        self.known(token, &caller, name.session, Some(name.execution))
            .await?;
        Ok(self.0.results.attach(name.execution, after).await?)
    }

    async fn fetch_more(
        &self,
        token: &UserToken,
        name: ExecutionName,
        request: FetchMoreRequest,
    ) -> Result<EventStream, Status> {
        let (caller, session) = self.called(token, name.session).await?;
        Ok(self.fetch_more_in(&caller, &session, name.execution, &request)?)
    }

    async fn run_script(
        &self,
        token: &UserToken,
        _instance: InstanceId,
        request: pooler::v1::RunScriptRequest,
    ) -> Result<EventStream, Status> {
        Ok(Box::pin(self.run_script(token, request)).await?)
    }

    async fn get_execution(
        &self,
        token: &UserToken,
        name: ExecutionName,
    ) -> Result<query::v1::Execution, Status> {
        Ok(self.execution(token, name.session, Some(name.execution)).await?)
    }

    async fn get_last_execution(
        &self,
        token: &UserToken,
        session: SessionName,
    ) -> Result<query::v1::Execution, Status> {
        Ok(self.execution(token, session, None).await?)
    }

    async fn get_transaction_outcome(
        &self,
        token: &UserToken,
        _instance: InstanceId,
        request: GetTransactionOutcomeRequest,
    ) -> Result<GetTransactionOutcomeResponse, Status> {
        Ok(self.transaction_outcome(token, request).await?)
    }

    async fn cancel_execution(&self, token: &UserToken, name: ExecutionName) -> Result<(), Status> {
        let session = self.session(token, name.session).await?;
        match self.close_portal(&session, name.execution).await {
            // It runs, or has ended.
            Err(PoolerError::PortalClosed | PoolerError::SessionBusy) => Ok(session.cancel(name.execution)?),
            closed => Ok(closed?),
        }
    }

    async fn begin_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
        request: BeginTransactionRequest,
    ) -> Result<query::v1::Session, Status> {
        let (caller, session) = self.called(token, name).await?;
        let plan = match session.facts.rights.access() {
            Access::ReadWrite => Plan::statement(begin(&request), None),
            Access::ReadOnly => {
                let request = BeginTransactionRequest {
                    read_only: true,
                    ..request
                };
                Plan::read_only_block(begin(&request))
            }
        };
        let idle = |status| status == TransactionStatus::Idle;
        let by = (&*caller, "BeginTransaction");
        let ended = self.quiet(by, &session, plan, CopySource::None, idle).await?;
        refused(&ended)?;
        Ok(session.describe()?)
    }

    async fn commit_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<CommitTransactionResponse, Status> {
        let (caller, session) = self.called(token, name).await?;
        let plan = Plan::statement("COMMIT".to_owned(), None);
        let open = |status| status == TransactionStatus::InTransaction;
        let by = (&*caller, "CommitTransaction");
        let ended = self.quiet(by, &session, plan, CopySource::None, open).await?;
        Ok(CommitTransactionResponse {
            session: Some(session.describe()?),
            error: ended.error,
        })
    }

    async fn rollback_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status> {
        let (caller, session) = self.called(token, name).await?;
        let plan = Plan::statement("ROLLBACK".to_owned(), None);
        let any = |status| status != TransactionStatus::Idle;
        let by = (&*caller, "RollbackTransaction");
        let ended = self.quiet(by, &session, plan, CopySource::None, any).await?;
        refused(&ended)?;
        Ok(session.describe()?)
    }

    async fn watch_session(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<NotificationStream, Status> {
        let watched = self.session(token, name).await?.watch()?;
        Ok(unfold(watched, |mut watched| async {
            Some((Ok(watched.recv().await?), watched))
        })
        .boxed())
    }

    async fn copy_in(
        &self,
        token: &UserToken,
        name: SessionName,
        requests: BoxStream<'static, Result<CopyInRequest, Status>>,
    ) -> Result<CopyInResponse, Status> {
        let (caller, session) = self.called(token, name).await?;
        if session.facts.rights.access() == Access::ReadOnly {
            return Err(PoolerError::SessionReadOnly.into());
        }
        self.copy_in(&caller, &session, requests).await
    }

    async fn test_server(
        &self,
        token: &UserToken,
        _instance: InstanceId,
        request: server::v1::TestServerRequest,
    ) -> Result<server::v1::TestServerResponse, Status> {
        Ok(Box::pin(self.test_server(token, request)).await?)
    }

    async fn inspect_server(
        &self,
        token: &UserToken,
        _instance: InstanceId,
        request: server::v1::InspectServerRequest,
    ) -> Result<server::v1::InspectServerResponse, Status> {
        Ok(self.inspect_server(token, request).await?)
    }

    async fn lease_slots(
        &self,
        instance: InstanceId,
        request: pooler::v1::LeaseSlotsRequest,
    ) -> Result<SlotStream, Status> {
        Ok(self.lease_slots(instance, &request).await?)
    }
}

/// Has the call's closing line say which session it was about.
pub(super) fn note(name: SessionName) {
    telemetry::rpc::record(Id::Server, &name.server);
    telemetry::rpc::record(Id::Session, &name.session);
}

impl Pooler {
    /// The caller's session.
    pub(super) async fn session(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<Arc<Session>, PoolerError> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        note(name);
        loop {
            let session = match self.0.registry.find(name, caller.user)? {
                Some(session) => session,
                None => self.fetch(name, caller.user).await?,
            };
            if !session.is_moving() {
                let needs = session.settle_access();
                self.serve(&session, needs);
                return Ok(session);
            }
            session.move_settled().await;
        }
    }

    pub(super) fn execution_id(&self) -> ExecutionId {
        ExecutionId::generate(&*self.0.random)
    }

    /// Runs a statement of which only the end matters.
    async fn quiet(
        &self,
        by: (&Caller, &'static str),
        session: &Arc<Session>,
        plan: Plan,
        copy: CopySource,
        allowed: impl FnOnce(TransactionStatus) -> bool,
    ) -> Result<Ended, PoolerError> {
        let (execution, answer) = self.start_quiet(by, session, plan, copy, allowed)?;
        answered(session, execution, answer.await)
    }

    fn start_quiet(
        &self,
        (caller, method): (&Caller, &'static str),
        session: &Arc<Session>,
        plan: Plan,
        copy: CopySource,
        allowed: impl FnOnce(TransactionStatus) -> bool,
    ) -> Result<(ExecutionId, oneshot::Receiver<Result<Ended, PoolerError>>), PoolerError> {
        let (reply, answer) = oneshot::channel();
        let execution = self.execution_id();
        let work = Work::Quiet {
            audited: self.audited(caller, session, execution, method, &plan.sql)?,
            plan,
            copy,
            reply,
        };
        let needs = session.start(execution, work, 0, allowed)?;
        self.serve(session, needs);
        Ok((execution, answer))
    }

    /// Closes the portal of a suspended execution, which ends it.
    async fn close_portal(&self, session: &Arc<Session>, execution: ExecutionId) -> Result<(), PoolerError> {
        let (reply, answer) = oneshot::channel();
        let work = Work::Quiet {
            plan: Plan::of_portal(PortalUse::Close),
            copy: CopySource::None,
            reply,
            // It runs nothing of its caller's.
            audited: Audited::default(),
        };
        let needs = session.use_portal(execution, work)?;
        self.serve(session, needs);
        match answered(session, execution, answer.await) {
            // GetExecution has the error of a transaction that could not be committed.
            Ok(_) | Err(PoolerError::ExecutionCancelled) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn copy_in(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        mut requests: BoxStream<'static, Result<CopyInRequest, Status>>,
    ) -> Result<CopyInResponse, Status> {
        let start = match requests
            .next()
            .await
            .transpose()?
            .and_then(|request| request.kind)
        {
            Some(CopyInKind::Start(start)) => start,
            Some(CopyInKind::Data(_)) | None => {
                return Err(invalid("start", "the first message must have it").into());
            }
        };
        request::check_sql("start.sql", &start.sql)?;
        if classify(&start.sql) != StatementKind::CopyFromStdin {
            return Err(invalid("start.sql", "must be one COPY ... FROM STDIN statement").into());
        }
        let timeout = request::statement_timeout("start.statement_timeout", start.statement_timeout)?;
        let plan = Plan::statement(start.sql, timeout);
        let (pieces, copy) = copy_channel();
        let by = (caller, "CopyIn");
        let (execution, mut answer) = self.start_quiet(by, session, plan, copy, |_| true)?;
        let ended = tokio::select! {
            biased;
            ended = &mut answer => ended,
            () = feed(requests, pieces) => answer.await,
        };
        let ended = answered(session, execution, ended)?;
        let failed = ended.error.is_some();
        Ok(CopyInResponse {
            command_tag: if failed { String::new() } else { ended.tag },
            row_count: if failed {
                0
            } else {
                ended.tag_rows.unwrap_or_default()
            },
            error: ended.error,
            session: Some(session.describe()?),
        })
    }
}

fn answered(
    session: &Session,
    execution: ExecutionId,
    answer: Result<Result<Ended, PoolerError>, oneshot::error::RecvError>,
) -> Result<Ended, PoolerError> {
    let cut_short = |ended: &Ended| {
        let cut = [ExecutionOutcome::Cancelled, ExecutionOutcome::TimedOut].contains(&ended.outcome);
        cut && ended.error.is_none()
    };
    match answer {
        Ok(Ok(ended)) if ended.outcome == ExecutionOutcome::ElevationEnded => {
            Err(PoolerError::ElevationEnded {
                current: session.incarnation(),
            })
        }
        Ok(Ok(ended)) if ended.lost.is_none() && cut_short(&ended) => Err(PoolerError::ExecutionCancelled),
        Ok(Ok(ended)) if ended.lost.is_none() => Ok(ended),
        Ok(Err(error)) => Err(error),
        // The session is gone as well, but what became of the transaction matters more.
        Ok(Ok(ended)) if ended.commit.as_ref().is_some_and(Commit::is_sent) => {
            Err(PoolerError::OutcomeUnknown {
                execution: ExecutionName {
                    session: session.facts.name,
                    execution,
                },
            })
        }
        // The session is gone; one that shares backends goes on and says that it was recovered.
        Ok(Ok(_)) | Err(_) => Err(session.describe().err().unwrap_or(PoolerError::SessionRecovered {
            current: session.incarnation(),
        })),
    }
}

/// Hands the data of a COPY to the session's task, and says when it is complete.
///
/// HTTP/2 shows a call that was given up as a stream that ends, so an end is believed only if the call is still there
/// afterwards: a server drops it right after the poll in which the stream ended.
async fn feed(mut requests: BoxStream<'static, Result<CopyInRequest, Status>>, pieces: CopySender) {
    while let Some(request) = requests.next().await {
        // Dropping the sender without an end makes the COPY fail.
        let Ok(Some(CopyInKind::Data(data))) = request.map(|request| request.kind) else {
            return;
        };
        if !pieces.send(data).await {
            return;
        }
    }
    tokio::task::yield_now().await;
    pieces.end().await;
}

/// BEGIN refused by the server is a refusal of the call: there is no script whose error it could be.
fn refused(ended: &Ended) -> Result<(), PoolerError> {
    match ended.error.as_ref().and_then(|error| error.message.as_ref()) {
        None => Ok(()),
        Some(message) => Err(TargetError::Refused {
            sqlstate: message.sqlstate.clone(),
            message: message.message.clone(),
        }
        .into()),
    }
}

/// The statement for a request; every word of it is ours.
fn begin(request: &BeginTransactionRequest) -> String {
    let mut sql = "BEGIN".to_owned();
    sql.push_str(match request.isolation_level() {
        IsolationLevel::Unspecified => "",
        IsolationLevel::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
        IsolationLevel::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
        IsolationLevel::Serializable => " ISOLATION LEVEL SERIALIZABLE",
    });
    if request.read_only {
        sql.push_str(" READ ONLY");
    }
    if request.deferrable {
        sql.push_str(" DEFERRABLE");
    }
    sql
}
