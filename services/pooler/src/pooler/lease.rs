//! Slots for a worker's programs: held as long as the worker listens.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::SlotStream;
use domain::id::{InstanceId, UserId};
use futures::StreamExt as _;
use futures::stream::unfold;
use rpc::pooler::v1::lease_slots_response::Kind;
use rpc::pooler::v1::{LeaseSlotsRequest, LeaseSlotsResponse};
use store::succession::SlotLease;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::Pooler;
use crate::error::PoolerError;
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::request::invalid;
use crate::slots::Slot;
use crate::status::store_error;

/// Between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

struct Lease {
    pooler: Pooler,
    instance: Arc<Instance>,
    slot: Slot,
    /// For the pooler that owns the instance next.
    record: SlotLease,
    granted: bool,
    first: bool,
    /// Where it ends now the worker ended it: it needs the slots no more.
    given_up: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.granted && self.given_up {
            let (pooler, record) = (self.pooler.clone(), self.record.clone());
            self.pooler
                .0
                .tasks
                .spawn(async move { pooler.end_lease(&record).await });
        }
    }
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
        let record = SlotLease {
            operation: request.operation.clone(),
            instance_id: instance.id,
            slots: count,
        };
        let claim = Claim {
            user,
            class: Class::Worker,
            count,
            holder,
            pool: None,
        };
        let slot = if request.held {
            // The worker's programs are connected: they are counted, whatever the budget says.
            let slot = instance.slots.adopt(claim);
            self.record_lease(&record).await?;
            slot
        } else {
            instance.slots.claim(claim)?
        };
        let lease = Lease {
            pooler: self.clone(),
            instance,
            slot,
            record,
            granted: request.held,
            first: true,
            given_up: true,
        };
        Ok(unfold(Some(lease), |lease| async { Some(next(lease?).await) }).boxed())
    }
}

/// The next message, and the lease unless it is over.
async fn next(mut lease: Lease) -> (Result<LeaseSlotsResponse, Status>, Option<Lease>) {
    let closing = lease.pooler.0.closing.clone();
    let instance = Arc::clone(&lease.instance);
    let left = instance.left.notified();
    let said = tokio::select! {
        said = lease.next() => said,
        // The worker goes on, and announces what it holds to the next owner.
        () = left => Err(PoolerError::Moved { owner: None }),
        () = closing.cancelled() => Err(PoolerError::ShuttingDown),
    };
    match said {
        Ok(kind) => (Ok(LeaseSlotsResponse { kind: Some(kind) }), Some(lease)),
        Err(error) => {
            lease.given_up = false;
            (Err(error.into()), None)
        }
    }
}

impl Pooler {
    async fn record_lease(&self, lease: &SlotLease) -> Result<(), PoolerError> {
        let recorded = self
            .0
            .store
            .succession()
            .record_lease(self.0.me.incarnation, lease)
            .await;
        recorded.map_err(store_error)
    }

    async fn end_lease(&self, lease: &SlotLease) {
        if let Err(error) = self
            .0
            .store
            .succession()
            .end_lease(self.0.me.incarnation, lease)
            .await
        {
            // It is counted by the next owner until the operation has ended.
            tracing::debug!(%error, operation = lease.operation, "a lease stays on the record");
        }
    }
}

impl Lease {
    async fn next(&mut self) -> Result<Kind, PoolerError> {
        if self.granted {
            if !std::mem::take(&mut self.first) {
                sleep(SIGN_OF_LIFE).await;
            }
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
            self.pooler.record_lease(&self.record).await?;
            self.granted = true;
            return Ok(Kind::Granted(true));
        }
        let position = self.slot.position().unwrap_or_default();
        Ok(Kind::QueuePosition(i32::try_from(position).unwrap_or(i32::MAX)))
    }
}
