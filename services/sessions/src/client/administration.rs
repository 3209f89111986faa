//! Asks every pooler.

use std::time::Duration;

use async_trait::async_trait;
use domain::id::InstanceId;
use domain::session::{PoolerId, SessionName};
use futures::future::join_all;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::administration_service_client::AdministrationServiceClient;
use rpc::pooler::v1::{
    DrainRequest, KillBackendRequest, KillSessionRequest, ReconnectInstanceRequest, RefreshInstanceRequest,
    Section, ShowPoolerRequest, ShowPoolerResponse,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::PoolerClient;
use super::failure::{broken, unavailable};
use crate::UserToken;
use crate::directory::PoolerEntry;
use crate::pools::{Asked, Pools};

/// How long a pooler has to answer: longer than it waits for a session to end.
const WITHIN: Duration = Duration::from_secs(15);
/// Tens of thousands of clients are shown at once.
const MOST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

type Client = AdministrationServiceClient<Channel>;

impl PoolerClient {
    fn administration(&self, entry: &PoolerEntry) -> Result<Client, Status> {
        let channel = self.channels.channel(entry)?;
        Ok(AdministrationServiceClient::new(channel).max_decoding_message_size(MOST_MESSAGE_BYTES))
    }

    /// Asks every pooler at once.
    async fn ask_all<M: Clone, T>(
        &self,
        token: &UserToken,
        message: M,
        call: impl AsyncFn(Client, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<Asked<T>, Status> {
        let snapshot = self.directory.snapshot();
        let asks = snapshot.poolers.iter().map(|entry| {
            let (message, call) = (message.clone(), &call);
            async move {
                let request = self.user_request(token, message)?;
                self.ask(entry, request, call).await
            }
        });
        let mut asked = Asked {
            answers: Vec::new(),
            unreachable: Vec::new(),
        };
        for (entry, answer) in snapshot.poolers.iter().zip(join_all(asks).await) {
            match answer {
                Ok(answer) => asked.answers.push(answer),
                Err(error) if is_silence(&error) => asked.unreachable.push(entry.pooler),
                Err(error) => return Err(error),
            }
        }
        Ok(asked)
    }

    async fn ask<M, T>(
        &self,
        entry: &PoolerEntry,
        request: Request<M>,
        call: &impl AsyncFn(Client, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let client = self.administration(entry)?;
        match timeout(WITHIN, call(client, request)).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(broken),
            Err(_) => Err(unavailable()),
        }
    }
}

/// True where nothing of ours has answered, a pooler of a version before this one among that.
fn is_silence(error: &Status) -> bool {
    match rpc::error::reason(error) {
        Some(reason) => reason == ErrorReason::PoolerUnavailable,
        None => matches!(
            error.code(),
            Code::Unimplemented | Code::Unavailable | Code::DeadlineExceeded
        ),
    }
}

#[async_trait]
impl Pools for PoolerClient {
    async fn show(&self, token: &UserToken, section: Section) -> Result<Asked<ShowPoolerResponse>, Status> {
        let message = ShowPoolerRequest {
            section: section.into(),
        };
        let call = async |mut client: Client, request| client.show_pooler(request).await;
        self.ask_all(token, message, call).await
    }

    async fn refresh_instance(&self, token: &UserToken, instance: InstanceId) -> Result<Asked<()>, Status> {
        let message = RefreshInstanceRequest {
            name: format!("instances/{instance}"),
        };
        let call = async |mut client: Client, request| client.refresh_instance(request).await;
        let asked = self.ask_all(token, message, call).await?;
        Ok(answers(asked, drop))
    }

    async fn reconnect_instance(
        &self,
        token: &UserToken,
        instance: InstanceId,
    ) -> Result<Asked<usize>, Status> {
        let message = ReconnectInstanceRequest {
            name: format!("instances/{instance}"),
        };
        let call = async |mut client: Client, request| client.reconnect_instance(request).await;
        let asked = self.ask_all(token, message, call).await?;
        Ok(answers(asked, |answer| {
            usize::try_from(answer.backends).unwrap_or_default()
        }))
    }

    async fn drain_pooler(&self, token: &UserToken, pooler: PoolerId) -> Result<(), Status> {
        let snapshot = self.directory.snapshot();
        let entry = snapshot.poolers.iter().find(|entry| entry.pooler == pooler);
        let entry = entry.ok_or_else(|| {
            let text = format!("poolers/{pooler} was not found");
            rpc::error::plain(Code::NotFound, ErrorReason::ResourceNotFound, text)
        })?;
        let request = self.user_request(token, DrainRequest {})?;
        let call = async |mut client: Client, request| client.drain(request).await;
        self.ask(entry, request, &call).await.map(drop)
    }

    async fn kill_session(&self, token: &UserToken, name: SessionName) -> Result<Asked<bool>, Status> {
        let message = KillSessionRequest {
            name: name.to_string(),
        };
        let call = async |mut client: Client, request| client.kill_session(request).await;
        let asked = self.ask_all(token, message, call).await?;
        Ok(answers(asked, |answer| answer.found))
    }

    async fn kill_backend(
        &self,
        token: &UserToken,
        instance: InstanceId,
        process_id: i32,
    ) -> Result<Asked<bool>, Status> {
        let message = KillBackendRequest {
            name: format!("instances/{instance}/backends/{process_id}"),
        };
        let call = async |mut client: Client, request| client.kill_backend(request).await;
        let asked = self.ask_all(token, message, call).await?;
        Ok(answers(asked, |answer| answer.found))
    }
}

fn answers<T, U>(asked: Asked<T>, read: impl Fn(T) -> U) -> Asked<U> {
    Asked {
        answers: asked.answers.into_iter().map(read).collect(),
        unreachable: asked.unreachable,
    }
}
