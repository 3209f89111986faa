//! The calls of sessions, each with where it goes and whether it may be sent again.

use async_trait::async_trait;
use domain::id::{InstanceId, ServerId};
use domain::session::{ExecutionName, SessionName};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use rpc::errors::v1::ErrorReason;
use rpc::{pooler, query, server};
use tokio::sync::oneshot;
use tonic::{Response, Status};

use super::copy_messages::CopyMessages;
use super::failure::{broken, outcome_unknown, reached_nobody};
use super::{PoolerClient, Repeating, whole};
use crate::{EventStream, NotificationStream, Sessions, SlotStream, UserToken};

/// A call of that name, for `at_session` and `at_instance`.
macro_rules! call {
    ($method:ident) => {
        |mut client, request| async move { client.$method(request).await }.boxed()
    };
}

fn stream<T: 'static>(
    answer: Result<Response<tonic::Streaming<T>>, Status>,
    broken: fn(Status) -> Status,
) -> Result<BoxStream<'static, Result<T, Status>>, Status> {
    let stream = answer?.into_inner();
    Ok(stream.map(move |item| item.map_err(broken)).boxed())
}

impl PoolerClient {
    async fn execution(
        &self,
        token: &UserToken,
        session: SessionName,
        name: String,
    ) -> Result<query::v1::Execution, Status> {
        let message = pooler::v1::GetExecutionRequest { name };
        let answer = self.at_session(token, session, message, Repeating::Harmless, call!(get_execution));
        whole(answer.await?.into_inner().execution)
    }
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
            call!(open_session),
        );
        whole(answer.await?.into_inner().session)
    }

    async fn get_session(&self, token: &UserToken, name: SessionName) -> Result<query::v1::Session, Status> {
        let message = pooler::v1::GetSessionRequest {
            name: name.to_string(),
        };
        let answer = self.at_session(token, name, message, Repeating::Harmless, call!(get_session));
        whole(answer.await?.into_inner().session)
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
            call!(keep_session_alive),
        );
        whole(answer.await?.into_inner().session)
    }

    async fn close_session(&self, token: &UserToken, name: SessionName) -> Result<(), Status> {
        let message = pooler::v1::CloseSessionRequest {
            name: name.to_string(),
        };
        let answer = self.at_session(token, name, message, Repeating::Harmless, call!(close_session));
        answer.await.map(drop)
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
        let answer = self.at_session(token, name, message, repeating, call!(execute));
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
            call!(fetch_more),
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
            call!(run_script),
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
            call!(resume_execution),
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
            call!(get_transaction_outcome),
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
            call!(cancel_execution),
        );
        answer.await.map(drop)
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
        let answer = self.at_session(token, name, message, Repeating::Harmful, call!(begin_transaction));
        whole(answer.await?.into_inner().session)
    }

    async fn commit_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::CommitTransactionResponse, Status> {
        let message = pooler::v1::CommitTransactionRequest {
            session: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name,
            message,
            Repeating::Harmful,
            call!(commit_transaction),
        );
        whole(answer.await?.into_inner().response)
    }

    async fn rollback_transaction(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<query::v1::Session, Status> {
        let message = pooler::v1::RollbackTransactionRequest {
            session: name.to_string(),
        };
        let answer = self.at_session(
            token,
            name,
            message,
            Repeating::Harmful,
            call!(rollback_transaction),
        );
        whole(answer.await?.into_inner().session)
    }

    async fn watch_session(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<NotificationStream, Status> {
        let message = pooler::v1::WatchSessionRequest {
            session: name.to_string(),
        };
        let answer = self.at_session(token, name, message, Repeating::Harmless, call!(watch_session));
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
            call!(test_server),
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
            call!(inspect_server),
        );
        whole(answer.await?.into_inner().response)
    }

    async fn lease_slots(
        &self,
        instance: InstanceId,
        request: pooler::v1::LeaseSlotsRequest,
    ) -> Result<SlotStream, Status> {
        let answer = self.at_instance(instance, None, request, Repeating::Harmless, call!(lease_slots));
        stream(answer.await, broken)
    }
}
