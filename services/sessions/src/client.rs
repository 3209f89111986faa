//! Sessions that are held by other processes: finds the right pooler and asks it over gRPC.
//!
//! A call on a session goes where the session's id says, or where it was found last, without asking any database; from
//! there it follows the session if that has moved. A call that opens something goes to the instance's owner, or to whoever
//! would become it. A pooler's status reaches the caller as it came; where none came, because the pooler cannot be reached,
//! the status is UNAVAILABLE `POOLER_UNAVAILABLE`, or UNKNOWN `OUTCOME_UNKNOWN` where the call may have been carried out and
//! is not one that can be repeated.

mod administration;
mod channels;
mod copy_messages;
mod failure;
mod found;
mod route;

use std::time::Duration;

use async_trait::async_trait;
use domain::id::{InstanceId, ServerId};
use domain::session::{ExecutionName, PoolerId, SessionName};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::pooler_service_client::PoolerServiceClient;
use rpc::{pooler, query, server};
use secrecy::ExposeSecret as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use self::channels::Channels;
use self::copy_messages::CopyMessages;
use self::failure::{broken, in_doubt_still, outcome_unknown, reached_nobody, unavailable};
use self::found::Found;
use crate::directory::{Directory, PoolerEntry};
use crate::{EventStream, NotificationStream, Sessions, SlotStream, UserToken};

/// Poolers asked before giving up: the first may have become the wrong one, and so may the one it names.
const MOST_HOPS: usize = 3;
/// How long a call follows a session that moves.
const FOLLOW: Duration = Duration::from_secs(3);
/// Before a pooler is asked again that was asked already: what moves needs a moment to arrive.
const AGAIN: Duration = Duration::from_millis(50);

/// Adds the trace context of the current span to a call's metadata (W3C Trace Context).
pub type InjectTrace = fn(&mut MetadataMap);

/// Sessions held by poolers elsewhere. Clones share their channels.
#[derive(Debug, Clone)]
pub struct PoolerClient {
    directory: Directory,
    channels: Channels,
    found: Found,
    inject_trace: InjectTrace,
}

/// Whether a call may be sent again where it is not known what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeating {
    /// It does the same twice as once.
    Harmless,
    /// It is carried out once however often it is sent, as long as the session goes on as it was.
    Once,
    /// It may do twice what is wanted once.
    Harmful,
}

type Client = PoolerServiceClient<Channel>;
type Call<M, T> = fn(Client, Request<M>) -> BoxFuture<'static, Result<Response<T>, Status>>;

impl PoolerClient {
    /// A client that finds poolers through `directory`. Without `tls` it speaks plain HTTP/2: only for a pooler that nobody
    /// else can reach.
    #[must_use]
    pub fn new(directory: Directory, tls: Option<ClientTlsConfig>, inject_trace: InjectTrace) -> Self {
        Self {
            directory,
            channels: Channels::new(tls),
            found: Found::default(),
            inject_trace,
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        (self.inject_trace)(request.metadata_mut());
        request
    }

    fn user_request<T>(&self, token: &UserToken, message: T) -> Result<Request<T>, Status> {
        let mut request = self.request(message);
        let value = MetadataValue::try_from(format!("Bearer {}", token.0.expose_secret()));
        let mut value = value.map_err(|_| {
            rpc::error::plain(
                tonic::Code::Unauthenticated,
                ErrorReason::TokenInvalid,
                "the token is not one of ours",
            )
        })?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    /// Asks the pooler that holds a session, wherever it has moved to.
    async fn at_session<M: Clone, T>(
        &self,
        token: &UserToken,
        name: SessionName,
        message: M,
        repeating: Repeating,
        call: Call<M, T>,
    ) -> Result<Response<T>, Status> {
        let give_up = Instant::now() + FOLLOW;
        let mut asked: Vec<PoolerId> = Vec::new();
        // An answer was lost to a call that may have been carried out.
        let mut in_doubt = false;
        let first = self.found.holder(name.session);
        let mut to = Some(first);
        loop {
            let snapshot = self.directory.snapshot();
            let known = to.and_then(|to| snapshot.poolers.iter().find(|entry| entry.pooler == to));
            // Where nobody has that number, any other can tell where the session is, or go on with it.
            let entry = known.or_else(|| route::any(&snapshot, name, &asked));
            let entry = entry
                .or_else(|| route::any(&snapshot, name, &[]))
                .ok_or_else(unavailable)?;
            if asked.contains(&entry.pooler) {
                sleep(AGAIN).await;
            }
            asked.push(entry.pooler);
            let request = self.user_request(token, message.clone())?;
            let error = match call(self.channels.client(entry)?, request).await {
                Ok(answer) => {
                    if entry.pooler != first {
                        self.found.note(name.session, entry.pooler);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match rpc::error::reason(&error) {
                Some(ErrorReason::Moved) => to = named_owner(&error),
                // It is known there, so it was carried out.
                Some(ErrorReason::ResultExpired) => return Err(error),
                Some(_) if in_doubt => return Err(in_doubt_still()),
                Some(ErrorReason::ResourceNotFound) => {
                    self.found.forget(name.session);
                    return Err(error);
                }
                Some(_) => return Err(error),
                // The transport says so.
                None if reached_nobody(&error) => to = None,
                None if repeating == Repeating::Harmful => return Err(outcome_unknown(error)),
                None => {
                    in_doubt |= repeating == Repeating::Once;
                    to = None;
                }
            }
            if Instant::now() >= give_up {
                return Err(if in_doubt { in_doubt_still() } else { broken(error) });
            }
        }
    }

    /// The pooler that holds a session now.
    async fn holder(&self, token: &UserToken, name: SessionName) -> Result<PoolerEntry, Status> {
        self.get_session(token, name).await?;
        let holder = self.found.holder(name.session);
        let snapshot = self.directory.snapshot();
        let entry = snapshot.poolers.iter().find(|entry| entry.pooler == holder);
        entry.cloned().ok_or_else(unavailable)
    }

    async fn execution(
        &self,
        token: &UserToken,
        session: SessionName,
        name: String,
    ) -> Result<query::v1::Execution, Status> {
        let message = pooler::v1::GetExecutionRequest { name };
        let answer = self.at_session(
            token,
            session,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.get_execution(request).await }.boxed(),
        );
        let answer = answer.await;
        whole(answer?.into_inner().execution)
    }

    /// Asks the owner of an instance, or one after the other who may become it, and goes where it is sent. What
    /// must not be repeated is asked of another only where the one before has not begun it.
    async fn at_instance<M: Clone, T>(
        &self,
        instance: InstanceId,
        token: Option<&UserToken>,
        message: M,
        repeating: Repeating,
        call: Call<M, T>,
    ) -> Result<Response<T>, Status> {
        let snapshot = self.directory.snapshot();
        let mut asked: Vec<PoolerId> = Vec::new();
        let mut next = route::first(&snapshot, instance);
        let mut last = unavailable();
        while let Some(entry) = next.filter(|_| asked.len() < MOST_HOPS) {
            asked.push(entry.pooler);
            let request = match token {
                Some(token) => self.user_request(token, message.clone())?,
                None => self.request(message.clone()),
            };
            let error = match call(self.channels.client(entry)?, request).await {
                Ok(answer) => return Ok(answer),
                // It may have been carried out, and only its answer been lost.
                Err(error)
                    if repeating == Repeating::Harmful
                        && rpc::error::reason(&error).is_none()
                        && !reached_nobody(&error) =>
                {
                    return Err(outcome_unknown(error));
                }
                Err(error) => broken(error),
            };
            next = match rpc::error::reason(&error) {
                Some(ErrorReason::Moved) => named_owner(&error)
                    .and_then(|owner| snapshot.poolers.iter().find(|entry| entry.pooler == owner))
                    .filter(|entry| !asked.contains(&entry.pooler)),
                // Nothing has reached it: another may take its place.
                Some(ErrorReason::PoolerUnavailable | ErrorReason::ShuttingDown) => {
                    route::next(&snapshot, instance, &asked)
                }
                _ => return Err(error),
            };
            last = error;
        }
        Err(last)
    }
}

fn named_owner(error: &Status) -> Option<PoolerId> {
    error
        .get_details_error_info()?
        .metadata
        .get("pooler")?
        .parse()
        .ok()
        .map(PoolerId)
}

fn whole<T>(field: Option<T>) -> Result<T, Status> {
    field.ok_or_else(|| Status::internal("the pooler's answer is incomplete"))
}

fn stream<T: 'static>(
    answer: Result<Response<tonic::Streaming<T>>, Status>,
    broken: fn(Status) -> Status,
) -> Result<BoxStream<'static, Result<T, Status>>, Status> {
    let stream = answer?.into_inner();
    Ok(stream.map(move |item| item.map_err(broken)).boxed())
}

#[async_trait]
impl Sessions for PoolerClient {
    async fn open_session(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: query::v1::OpenSessionRequest,
    ) -> Result<query::v1::Session, Status> {
        let message = pooler::v1::OpenSessionRequest {
            request: Some(request),
        };
        let answer = self.at_instance(
            instance,
            Some(token),
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.open_session(request).await }.boxed(),
        );
        whole(answer.await?.into_inner().session)
    }

    async fn get_session(&self, token: &UserToken, name: SessionName) -> Result<query::v1::Session, Status> {
        let message = pooler::v1::GetSessionRequest {
            name: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.get_session(request).await }.boxed(),
        );
        let answer = answer.await;
        whole(answer?.into_inner().session)
    }

    async fn list_sessions(
        &self,
        token: &UserToken,
        server: Option<ServerId>,
    ) -> Result<Vec<query::v1::Session>, Status> {
        let parent = server.map_or_else(|| "servers/-".to_owned(), |server| format!("servers/{server}"));
        let snapshot = self.directory.snapshot();
        let asks = snapshot.poolers.iter().map(|entry| {
            let message = pooler::v1::ListSessionsRequest {
                parent: parent.clone(),
            };
            async move {
                let answer = self
                    .channels
                    .client(entry)?
                    .list_sessions(self.user_request(token, message)?)
                    .await;
                answer.map(|answer| answer.into_inner().sessions).map_err(broken)
            }
        });
        let mut sessions = Vec::new();
        for answer in futures::future::join_all(asks).await {
            match answer {
                Ok(some) => sessions.extend(some),
                // A pooler that is gone has no sessions any more.
                Err(error) if rpc::error::reason(&error) == Some(ErrorReason::PoolerUnavailable) => {
                    tracing::warn!("a pooler did not answer and its sessions are not listed");
                }
                Err(error) => return Err(error),
            }
        }
        sessions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sessions)
    }

    async fn keep_session_alive(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status> {
        let message = pooler::v1::KeepSessionAliveRequest {
            name: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.keep_session_alive(request).await }.boxed(),
        );
        let answer = answer.await;
        whole(answer?.into_inner().session)
    }

    async fn close_session(&self, token: &UserToken, name: SessionName) -> Result<(), Status> {
        let message = pooler::v1::CloseSessionRequest {
            name: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.close_session(request).await }.boxed(),
        );
        let answer = answer.await;
        answer.map(drop)
    }

    async fn execute(
        &self,
        token: &UserToken,
        name: SessionName,
        request: query::v1::ExecuteRequest,
    ) -> Result<EventStream, Status> {
        // What is asked for twice with one id is run once.
        let repeating = if request.request_id.is_empty() {
            Repeating::Harmful
        } else {
            Repeating::Once
        };
        let message = pooler::v1::ExecuteRequest {
            request: Some(request),
        };
        let answer = self.at_session(token, name, message, repeating, |mut client, request| {
            async move { client.execute(request).await }.boxed()
        });
        stream(answer.await, outcome_unknown)
    }

    async fn fetch_more(
        &self,
        token: &UserToken,
        name: ExecutionName,
        request: query::v1::FetchMoreRequest,
    ) -> Result<EventStream, Status> {
        let message = pooler::v1::FetchMoreRequest {
            request: Some(request),
        };
        let answer = self.at_session(
            token,
            name.session,
            message,
            // What was fetched is gone from the portal.
            Repeating::Harmful,
            |mut client, request| async move { client.fetch_more(request).await }.boxed(),
        );
        stream(answer.await, outcome_unknown)
    }

    async fn run_script(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: pooler::v1::RunScriptRequest,
    ) -> Result<EventStream, Status> {
        let answer = self.at_instance(
            instance,
            Some(token),
            request,
            Repeating::Harmful,
            |mut client, request| async move { client.run_script(request).await }.boxed(),
        );
        stream(answer.await, outcome_unknown)
    }

    async fn resume_execution(
        &self,
        token: &UserToken,
        name: ExecutionName,
        after: i64,
    ) -> Result<EventStream, Status> {
        let message = pooler::v1::ResumeExecutionRequest {
            request: Some(query::v1::ResumeExecutionRequest {
                name: name.to_string(),
                after_sequence: after,
            }),
        };
        let answer = self.at_session(
            token,
            name.session,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.resume_execution(request).await }.boxed(),
        );
        stream(answer.await, broken)
    }

    async fn get_execution(
        &self,
        token: &UserToken,
        name: ExecutionName,
    ) -> Result<query::v1::Execution, Status> {
        self.execution(token, name.session, name.to_string()).await
    }

    async fn get_last_execution(
        &self,
        token: &UserToken,
        session: SessionName,
    ) -> Result<query::v1::Execution, Status> {
        self.execution(token, session, format!("{session}/executions/-"))
            .await
    }

    async fn get_transaction_outcome(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: query::v1::GetTransactionOutcomeRequest,
    ) -> Result<query::v1::GetTransactionOutcomeResponse, Status> {
        let message = pooler::v1::GetTransactionOutcomeRequest {
            request: Some(request),
        };
        let answer = self.at_instance(
            instance,
            Some(token),
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.get_transaction_outcome(request).await }.boxed(),
        );
        whole(answer.await?.into_inner().response)
    }

    async fn cancel_execution(&self, token: &UserToken, name: ExecutionName) -> Result<(), Status> {
        let message = pooler::v1::CancelExecutionRequest {
            name: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name.session,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.cancel_execution(request).await }.boxed(),
        );
        let answer = answer.await;
        answer.map(drop)
    }

    async fn begin_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
        request: query::v1::BeginTransactionRequest,
    ) -> Result<query::v1::Session, Status> {
        // The pooler reads the session's name from the request; the caller's word for it is `name`.
        let request = query::v1::BeginTransactionRequest {
            session: name.to_string(),
            ..request
        };
        let message = pooler::v1::BeginTransactionRequest {
            request: Some(request),
        };
        let answer = self.at_session(token, name, message, Repeating::Harmful, |mut client, request| {
            async move { client.begin_transaction(request).await }.boxed()
        });
        let answer = answer.await;
        whole(answer?.into_inner().session)
    }

    async fn commit_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::CommitTransactionResponse, Status> {
        let message = pooler::v1::CommitTransactionRequest {
            session: name.to_string(),
        };
        let answer = self.at_session(token, name, message, Repeating::Harmful, |mut client, request| {
            async move { client.commit_transaction(request).await }.boxed()
        });
        let answer = answer.await;
        whole(answer?.into_inner().response)
    }

    async fn rollback_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status> {
        let message = pooler::v1::RollbackTransactionRequest {
            session: name.to_string(),
        };
        let answer = self.at_session(token, name, message, Repeating::Harmful, |mut client, request| {
            async move { client.rollback_transaction(request).await }.boxed()
        });
        let answer = answer.await;
        whole(answer?.into_inner().session)
    }

    async fn watch_session(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<NotificationStream, Status> {
        let message = pooler::v1::WatchSessionRequest {
            session: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name,
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.watch_session(request).await }.boxed(),
        );
        let answer = answer.await;
        let responses = answer?.into_inner();
        let responses = responses.map(|response| whole(response.map_err(broken)?.response));
        Ok(responses.boxed())
    }

    async fn copy_in(
        &self,
        token: &UserToken,
        name: SessionName,
        requests: BoxStream<'static, Result<query::v1::CopyInRequest, Status>>,
    ) -> Result<query::v1::CopyInResponse, Status> {
        // The data can be sent only once: so first find out where to.
        let mut client = self.channels.client(&self.holder(token, name).await?)?;
        let (over, when_over) = oneshot::channel();
        let (end, when_to_end) = oneshot::channel();
        let messages = CopyMessages {
            requests,
            over: Some(over),
            end: when_to_end,
        };
        let request = self.user_request(token, messages)?;
        let call = client.copy_in(request);
        tokio::pin!(call);
        let answer = tokio::select! {
            answer = &mut call => answer,
            over = when_over => {
                if let Ok(Err(error)) = over {
                    return Err(error);
                }
                // A call that was given up is dropped here.
                tokio::task::yield_now().await;
                let _ = end.send(());
                call.await
            }
        };
        let answer = answer.map_err(|error| match rpc::error::reason(&error) {
            None if !reached_nobody(&error) => outcome_unknown(error),
            _ => broken(error),
        });
        whole(answer?.into_inner().response)
    }

    async fn test_server(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: server::v1::TestServerRequest,
    ) -> Result<server::v1::TestServerResponse, Status> {
        let message = pooler::v1::TestServerRequest {
            request: Some(request),
        };
        let answer = self.at_instance(
            instance,
            Some(token),
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.test_server(request).await }.boxed(),
        );
        whole(answer.await?.into_inner().response)
    }

    async fn inspect_server(
        &self,
        token: &UserToken,
        instance: InstanceId,
        request: server::v1::InspectServerRequest,
    ) -> Result<server::v1::InspectServerResponse, Status> {
        let message = pooler::v1::InspectServerRequest {
            request: Some(request),
        };
        let answer = self.at_instance(
            instance,
            Some(token),
            message,
            Repeating::Harmless,
            |mut client, request| async move { client.inspect_server(request).await }.boxed(),
        );
        whole(answer.await?.into_inner().response)
    }

    async fn lease_slots(
        &self,
        instance: InstanceId,
        request: pooler::v1::LeaseSlotsRequest,
    ) -> Result<SlotStream, Status> {
        let answer = self.at_instance(
            instance,
            None,
            request,
            Repeating::Harmless,
            |mut client, request| async move { client.lease_slots(request).await }.boxed(),
        );
        stream(answer.await, broken)
    }
}
