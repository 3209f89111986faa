//! The calls of administrators, and of those who look.

use ::sessions::UserToken;
use ::sessions::pools::{Asked, Pools};
use async_trait::async_trait;
use domain::id::InstanceId;
use domain::session::{PoolerId, SessionName};
use rpc::pooler::v1::{Section, ShowPoolerResponse};
use tonic::Status;

use super::Pooler;
use crate::error::PoolerError;

#[async_trait]
impl Pools for Pooler {
    async fn show(&self, token: &UserToken, section: Section) -> Result<Asked<ShowPoolerResponse>, Status> {
        Ok(Asked::one(self.show_section(token, section).await?))
    }

    async fn refresh_instance(&self, token: &UserToken, instance: InstanceId) -> Result<Asked<()>, Status> {
        Ok(Asked::one(self.refresh_instance(token, instance).await?))
    }

    async fn reconnect_instance(
        &self,
        token: &UserToken,
        instance: InstanceId,
    ) -> Result<Asked<usize>, Status> {
        Ok(Asked::one(self.reconnect_instance(token, instance).await?))
    }

    async fn drain_pooler(&self, token: &UserToken, pooler: PoolerId) -> Result<(), Status> {
        if pooler != self.id() {
            let resource = format!("poolers/{pooler}");
            return Err(PoolerError::NotFound { resource }.into());
        }
        Ok(self.take_nothing_new(token).await?)
    }

    async fn kill_session(&self, token: &UserToken, name: SessionName) -> Result<Asked<bool>, Status> {
        Ok(Asked::one(self.kill_session(token, name).await?))
    }

    async fn kill_backend(
        &self,
        token: &UserToken,
        instance: InstanceId,
        process_id: i32,
    ) -> Result<Asked<bool>, Status> {
        Ok(Asked::one(self.kill_backend(token, instance, process_id).await?))
    }
}
