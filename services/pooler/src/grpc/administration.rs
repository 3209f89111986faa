//! A pooler's figures and the commands of administrators behind the internal gRPC service.

use ::sessions::UserToken;
use auth::AuthError;
use domain::access::Permission;
use domain::id::InstanceId;
use rpc::pooler::v1::administration_service_server::{AdministrationService, AdministrationServiceServer};
use rpc::pooler::v1::{
    DrainRequest, DrainResponse, KillBackendRequest, KillBackendResponse, KillSessionRequest,
    KillSessionResponse, ReconnectInstanceRequest, ReconnectInstanceResponse, RefreshInstanceRequest,
    RefreshInstanceResponse, ShowPoolerRequest, ShowPoolerResponse,
};
use tonic::{Request, Response, Status};

use super::{bearer, denied, name, required};
use crate::peer::{PeerPolicy, PeerRole, Peers};
use crate::pooler::Pooler;

/// The service, ready to be added to a tonic server.
#[must_use]
pub fn administration(pooler: Pooler, policy: PeerPolicy) -> AdministrationServiceServer<AdministrationGrpc> {
    AdministrationServiceServer::new(AdministrationGrpc {
        pooler,
        peers: Peers::new(policy),
    })
}

/// A [`Pooler`] as a gRPC service. Made by [`administration`].
#[derive(Debug)]
pub struct AdministrationGrpc {
    pooler: Pooler,
    peers: Peers,
}

impl AdministrationGrpc {
    fn token<T>(&self, request: &Request<T>, permission: Permission) -> Result<UserToken, Status> {
        if !self.peers.has_role(request, PeerRole::Api) {
            return Err(denied(permission));
        }
        bearer(request.metadata()).ok_or_else(|| AuthError::CredentialsMissing.into())
    }
}

fn instance(text: &str) -> Result<InstanceId, Status> {
    let id = text.strip_prefix("instances/").and_then(|id| id.parse().ok());
    Ok(required("name", id)?)
}

#[tonic::async_trait]
impl AdministrationService for AdministrationGrpc {
    async fn show_pooler(
        &self,
        request: Request<ShowPoolerRequest>,
    ) -> Result<Response<ShowPoolerResponse>, Status> {
        let token = self.token(&request, Permission::PoolsRead)?;
        let shown = self
            .pooler
            .show_section(&token, request.get_ref().section())
            .await?;
        Ok(Response::new(shown))
    }

    async fn refresh_instance(
        &self,
        request: Request<RefreshInstanceRequest>,
    ) -> Result<Response<RefreshInstanceResponse>, Status> {
        let token = self.token(&request, Permission::PoolsUpdate)?;
        let instance = instance(&request.get_ref().name)?;
        self.pooler.refresh_instance(&token, instance).await?;
        Ok(Response::new(RefreshInstanceResponse {}))
    }

    async fn reconnect_instance(
        &self,
        request: Request<ReconnectInstanceRequest>,
    ) -> Result<Response<ReconnectInstanceResponse>, Status> {
        let token = self.token(&request, Permission::PoolsUpdate)?;
        let instance = instance(&request.get_ref().name)?;
        let backends = self.pooler.reconnect_instance(&token, instance).await?;
        Ok(Response::new(ReconnectInstanceResponse {
            backends: i32::try_from(backends).unwrap_or(i32::MAX),
        }))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let token = self.token(&request, Permission::PoolsUpdate)?;
        self.pooler.take_nothing_new(&token).await?;
        Ok(Response::new(DrainResponse {}))
    }

    async fn kill_session(
        &self,
        request: Request<KillSessionRequest>,
    ) -> Result<Response<KillSessionResponse>, Status> {
        let token = self.token(&request, Permission::PoolsUpdate)?;
        let name = name("name", &request.get_ref().name)?;
        let found = self.pooler.kill_session(&token, name).await?;
        Ok(Response::new(KillSessionResponse { found }))
    }

    async fn kill_backend(
        &self,
        request: Request<KillBackendRequest>,
    ) -> Result<Response<KillBackendResponse>, Status> {
        let token = self.token(&request, Permission::PoolsUpdate)?;
        let (instance_name, process_id) = required("name", request.get_ref().name.split_once("/backends/"))?;
        let (instance, process_id) = (
            instance(instance_name)?,
            required("name", process_id.parse().ok())?,
        );
        let found = self.pooler.kill_backend(&token, instance, process_id).await?;
        Ok(Response::new(KillBackendResponse { found }))
    }
}
