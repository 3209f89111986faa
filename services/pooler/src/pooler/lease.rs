//! Slots for a worker's programs: held as long as the worker listens.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::SlotStream;
use domain::id::{InstanceId, UserId};
use futures::StreamExt as _;
use futures::stream::unfold;
use rpc::pooler::v1::lease_slots_response::Kind;
use rpc::pooler::v1::{LeaseSlotsRequest, LeaseSlotsResponse};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Pooler;
use crate::error::PoolerError;
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::request::invalid;
use crate::slots::Slot;

/// Between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

struct Lease {
    pooler: Pooler,
    instance: Arc<Instance>,
    slot: Slot,
    granted: bool,
    first: bool,
    closing: CancellationToken,
}

impl Pooler {
    pub(super) async fn lease_slots(
        &self,
        instance: InstanceId,
        request: &LeaseSlotsRequest,
    ) -> Result<SlotStream, PoolerError> {
        self.takes_new()?;
        let count = u32::try_from(request.count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| invalid("count", "must be at least 1"))?;
        let user: Option<UserId> = request.user.strip_prefix("users/").and_then(|id| id.parse().ok());
        let user = user.ok_or_else(|| invalid("user", "must be users/{user}"))?;
        let holder = request.operation.chars().take(200).collect();
        let instance = self.0.instances.own(instance).await?;
        let slot = instance.slots.claim(Claim {
            user,
            class: Class::Worker,
            count,
            holder,
            pool: None,
        })?;
        let closing = self.0.closing.clone();
        let lease = Lease {
            pooler: self.clone(),
            instance,
            slot,
            granted: false,
            first: true,
            closing,
        };
        Ok(unfold(Some(lease), |lease| async { Some(next(lease?).await) }).boxed())
    }
}

/// The next message, and the lease unless it is over.
async fn next(mut lease: Lease) -> (Result<LeaseSlotsResponse, Status>, Option<Lease>) {
    let closing = lease.closing.clone();
    let said = closing.run_until_cancelled(lease.next()).await;
    match said {
        Some(Ok(kind)) => (Ok(LeaseSlotsResponse { kind: Some(kind) }), Some(lease)),
        Some(Err(error)) => (Err(error.into()), None),
        None => (Err(PoolerError::ShuttingDown.into()), None),
    }
}

impl Lease {
    async fn next(&mut self) -> Result<Kind, PoolerError> {
        if self.granted {
            sleep(SIGN_OF_LIFE).await;
            return Ok(Kind::Granted(true));
        }
        // The first answer comes at once, later ones when something changes or as a sign of life.
        let wait = if std::mem::take(&mut self.first) {
            Duration::ZERO
        } else {
            SIGN_OF_LIFE
        };
        if let Ok(granted) = timeout(wait, self.slot.granted()).await {
            granted?;
            // The instance may have been lost in the queue: then whoever owns it now gives the slots.
            if !self.instance.is_ours() {
                self.pooler.0.instances.own(self.instance.id).await?;
            }
            self.granted = true;
            return Ok(Kind::Granted(true));
        }
        let position = self.slot.position().unwrap_or_default();
        Ok(Kind::QueuePosition(i32::try_from(position).unwrap_or(i32::MAX)))
    }
}
