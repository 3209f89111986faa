//! What poolers show of themselves, and what administrators have them do. Every pooler is asked, and one that does not answer
//! is named.

use async_trait::async_trait;
use domain::id::InstanceId;
use domain::session::{PoolerId, SessionName};
use rpc::pooler::v1::{Section, ShowPoolerResponse};
use tonic::Status;

use crate::UserToken;

/// What those who were asked said.
#[derive(Debug, Clone)]
pub struct Asked<T> {
    /// The answers that came.
    pub answers: Vec<T>,
    /// The poolers that did not answer.
    pub unreachable: Vec<PoolerId>,
}

impl<T> Asked<T> {
    /// The answer of the only one there is.
    #[must_use]
    pub fn one(answer: T) -> Self {
        Self {
            answers: vec![answer],
            unreachable: Vec::new(),
        }
    }
}

/// Pools, wherever they are. Errors are as documented in `proto/pgmoor/pool/v1/pool_service.proto`.
#[async_trait]
pub trait Pools: Send + Sync + 'static {
    /// A part of what the caller may see.
    async fn show(&self, token: &UserToken, section: Section) -> Result<Asked<ShowPoolerResponse>, Status>;

    /// Has an instance read anew from the config database.
    async fn refresh_instance(&self, token: &UserToken, instance: InstanceId) -> Result<Asked<()>, Status>;

    /// Has an instance's backends replaced. The answers say how many there are.
    async fn reconnect_instance(
        &self,
        token: &UserToken,
        instance: InstanceId,
    ) -> Result<Asked<usize>, Status>;

    /// Has a pooler take nothing new.
    async fn drain_pooler(&self, token: &UserToken, pooler: PoolerId) -> Result<(), Status>;

    /// Ends a session. The answers say whether it was there.
    async fn kill_session(&self, token: &UserToken, name: SessionName) -> Result<Asked<bool>, Status>;

    /// Closes a backend. The answers say whether it was there.
    async fn kill_backend(
        &self,
        token: &UserToken,
        instance: InstanceId,
        process_id: i32,
    ) -> Result<Asked<bool>, Status>;
}
