use rpc::access::v1::grant_service_server::GrantService;
use rpc::access::v1::*;
use rpc::errors::v1::ErrorReason;
use tonic::{Code, Request, Response, Status, async_trait};

use super::{Service, not_offered};

/// The policy of every server, as it stands.
#[derive(Debug, Default)]
pub struct Policy {
    pub policy: ServerPolicy,
    pub version: u32,
    /// Somebody else changes it so right after it is read.
    pub meanwhile: Option<ServerPolicy>,
}

impl Policy {
    fn etag(&self) -> String {
        self.version.to_string()
    }
}

#[async_trait]
impl GrantService for Service {
    async fn get_server_policy(
        &self,
        request: Request<GetServerPolicyRequest>,
    ) -> Result<Response<GetServerPolicyResponse>, Status> {
        self.0.admit(&request)?;
        let mut policy = self.0.policy.lock();
        let response = GetServerPolicyResponse {
            policy: Some(policy.policy.clone()),
            etag: policy.etag(),
        };
        if let Some(meanwhile) = policy.meanwhile.take() {
            policy.policy = meanwhile;
            policy.version += 1;
        }
        Ok(Response::new(response))
    }

    async fn update_server_policy(
        &self,
        request: Request<UpdateServerPolicyRequest>,
    ) -> Result<Response<UpdateServerPolicyResponse>, Status> {
        self.0.admit(&request)?;
        let request = request.into_inner();
        let mut policy = self.0.policy.lock();
        if !request.etag.is_empty() && request.etag != policy.etag() {
            return Err(rpc::error::plain(
                Code::Aborted,
                ErrorReason::EtagMismatch,
                "it was changed since it was read",
            ));
        }
        policy.policy = request.policy.unwrap();
        policy.version += 1;
        Ok(Response::new(UpdateServerPolicyResponse {
            policy: Some(policy.policy.clone()),
            etag: policy.etag(),
        }))
    }

    not_offered! {
        create_grant(CreateGrantRequest) -> CreateGrantResponse;
        get_grant(GetGrantRequest) -> GetGrantResponse;
        list_grants(ListGrantsRequest) -> ListGrantsResponse;
        update_grant(UpdateGrantRequest) -> UpdateGrantResponse;
        delete_grant(DeleteGrantRequest) -> DeleteGrantResponse;
    }
}
