//! Finding a session that this pooler does not hold: it may be on its way here, or its pooler may be gone.
//!
//! Nobody is asked here. What is known of its pooler is known from the look at what others left, which is taken once for
//! all who wait for it.

use std::sync::Arc;

use domain::id::{IncarnationId, UserId};
use domain::session::{PoolerId, SessionName};
use store::sessions::{Taking, Whereabouts};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::Pooler;
use crate::error::PoolerError;
use crate::instances::Instance;
use crate::session::Session;
use crate::status::store_error;

/// How long a call waits until it is known what became of a session's pooler. Whoever calls follows the session for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks for a session that is on its way.
const AGAIN: Duration = Duration::from_millis(20);

/// Where a session was seen.
enum Sighting {
    Here(Arc<Session>),
    /// Nobody knows yet whether its pooler serves it.
    Unclear(Arc<Instance>, IncarnationId),
    /// It was on its way.
    Moving,
}

impl Pooler {
    /// Fetches a session that this pooler does not hold: from one that let go of it or is gone, if the instance is ours or
    /// can be.
    pub(super) async fn fetch(&self, name: SessionName, caller: UserId) -> Result<Arc<Session>, PoolerError> {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            match self.look_for(name, caller).await? {
                Sighting::Here(session) => return Ok(session),
                Sighting::Unclear(instance, holder) => {
                    self.await_look(&instance, holder, give_up).await?;
                }
                Sighting::Moving => sleep(AGAIN).await,
            }
        }
        Err(PoolerError::Moved { owner: None })
    }

    async fn look_for(&self, name: SessionName, caller: UserId) -> Result<Sighting, PoolerError> {
        let found = self.0.store.sessions().whereabouts(name.session).await;
        let found = found.map_err(store_error)?;
        let found = found.filter(|found| found.owner_id == caller);
        let found = found.ok_or_else(|| PoolerError::NotFound {
            resource: name.to_string(),
        })?;
        if found.holder == self.0.me.incarnation && !found.parked {
            return self.look_at_home(name, caller, found).await;
        }
        let instance = self.0.instances.own(found.instance_id).await?;
        let holder = instance.forerunners.lock().get(&found.holder).copied();
        let taking = match holder {
            // It was let go of, by whomever.
            _ if found.parked => Taking::OneIfParked(name.session),
            Some(holder) if holder.is_gone() => Taking::One(name.session),
            Some(holder) if holder.answers() => {
                let owner = self.pooler_of(&instance, found.holder).await?;
                return Err(PoolerError::Moved { owner });
            }
            Some(holder) if holder.is_silent() => return Err(PoolerError::HolderSilent),
            Some(_) | None => return Ok(Sighting::Unclear(instance, found.holder)),
        };
        self.adopt(&instance, found.holder, taking).await?;
        Ok(sighting(self.0.registry.find(name, caller)?))
    }

    /// What is ours is in the registry, is just being taken over, or has just ended.
    async fn look_at_home(
        &self,
        name: SessionName,
        caller: UserId,
        found: Whereabouts,
    ) -> Result<Sighting, PoolerError> {
        if let Some(session) = self.0.registry.find(name, caller)? {
            return Ok(Sighting::Here(session));
        }
        // Or it was taken over and the answer that said so was lost.
        let instance = self.0.instances.own(found.instance_id).await?;
        self.adopt_if_lost(&instance, name).await?;
        Ok(sighting(self.0.registry.find(name, caller)?))
    }

    /// Waits for the next look at what other poolers left.
    async fn await_look(
        &self,
        instance: &Instance,
        holder: IncarnationId,
        give_up: Instant,
    ) -> Result<(), PoolerError> {
        let looked = instance.looked.notified();
        tokio::pin!(looked);
        looked.as_mut().enable();
        let known = instance.forerunners.lock().get(&holder).copied();
        if known.is_some_and(|known| !known.is_unasked()) {
            return Ok(());
        }
        self.0.instances.inherited.notify_one();
        let looked = timeout_at(give_up, looked).await;
        looked.map_err(|_| PoolerError::HolderSilent)
    }

    async fn pooler_of(
        &self,
        instance: &Instance,
        holder: IncarnationId,
    ) -> Result<Option<PoolerId>, PoolerError> {
        let left = self.0.instances.left_on(instance.id).await?;
        let holder = left.into_iter().find(|left| left.incarnation == holder);
        Ok(holder.and_then(|holder| holder.pooler_id))
    }
}

fn sighting(session: Option<Arc<Session>>) -> Sighting {
    session.map_or(Sighting::Moving, Sighting::Here)
}
