//! Taking over: what a pooler does with what others left on an instance that is its own now.
//!
//! Each of them is asked; see [`crate::forerunner`]. Until nothing is left it is counted, so that all poolers together
//! keep to the budget. Sessions that were let go of go on here at once. Those of a pooler that is gone are recovered, or
//! lost where they were held on a backend, in [`super::adoption`]; its connections are ended, in [`super::burial`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::sessions::peers::Answer;
use domain::id::InstanceId;
use futures::future::join_all;
use store::sessions::Taking;
use store::succession::Forerunner as Left;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Pooler;
use crate::error::PoolerError;
use crate::forerunner::{Forerunner, Heard};
use crate::instances::Instance;
use crate::status::store_error;

impl Pooler {
    /// Takes over what others leave, for ever.
    pub(super) async fn succeed_on(&self) {
        let mut ticks = interval(self.0.options.lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // While something is left it is looked at more often.
        let often = (self.0.options.lease / 15).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let mut left = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.instances.inherited.notified() => {}
                () = sleep(often), if left => {}
            }
            left = match timeout(self.0.options.lease * 4, self.succeed()).await {
                Ok(Ok(left)) => left,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "what other poolers left could not be looked at");
                    left
                }
                Err(_) => left,
            };
        }
    }

    /// Takes over once. True where something is left.
    async fn succeed(&self) -> Result<bool, PoolerError> {
        let (me, succession) = (self.0.me.incarnation, self.0.store.succession());
        if self.takes_new().is_ok() {
            for instance in succession.claimable(me).await.map_err(store_error)? {
                // Another pooler may be quicker.
                if let Err(error) = self.0.instances.own(instance).await {
                    tracing::debug!(instance.id = %instance, %error, "not taken over");
                }
            }
        }
        let inherited = succession.inherited(me).await.map_err(store_error)?;
        let mut inherited: HashSet<_> = inherited.into_iter().collect();
        // Where nothing is left any more, nothing is to be counted either.
        let counted = self.0.instances.all().into_iter();
        let counted = counted.filter(|instance| instance.is_ours() && instance.slots.elsewhere() > 0);
        inherited.extend(counted.map(|instance| instance.id));
        for instance in &inherited {
            self.succeed_at(*instance);
        }
        Ok(!inherited.is_empty())
    }

    /// Counts what others have on an instance that more names turned out to lead to.
    pub(super) async fn count_again(&self, instance: &Arc<Instance>) {
        if let Err(error) = self.ask_all(instance).await {
            tracing::warn!(instance.id = %instance.id, %error, "what other poolers have cannot be counted yet");
        }
        self.0.instances.inherited.notify_one();
    }

    /// Takes over on one instance as far as is possible now, in a task of its own: one server that does not answer must not
    /// hold up the others.
    fn succeed_at(&self, id: InstanceId) {
        let Some(instance) = self.0.instances.known(id).filter(|instance| instance.is_ours()) else {
            return;
        };
        // Who is at it looks again soon.
        let Ok(alone) = Arc::clone(&instance.succeeding).try_lock_owned() else {
            return;
        };
        let pooler = self.clone();
        self.0.tasks.spawn(async move {
            let _alone = alone;
            let draining = pooler.0.draining.clone();
            let succeeding = timeout(pooler.0.options.lease * 4, pooler.try_to_succeed_at(&instance));
            if let Some(Ok(Err(error))) = draining.run_until_cancelled(succeeding).await {
                tracing::warn!(instance.id = %instance.id, %error, "what other poolers left is still there");
            }
            instance.looked.notify_waiters();
        });
    }

    /// Asks everybody who left something, and counts what they say.
    async fn ask_all(&self, instance: &Arc<Instance>) -> Result<Vec<(Left, Forerunner)>, PoolerError> {
        let left = self.0.instances.left_on(instance.id).await?;
        instance.count_left(&left);
        let heard = join_all(left.iter().map(|left| self.ask(instance, left))).await;
        let now = self.0.clock.uptime();
        let mut all = Vec::new();
        for (left, heard) in left.iter().zip(heard) {
            let mut forerunners = instance.forerunners.lock();
            let known = forerunners.get(&left.incarnation).copied();
            let known = known.unwrap_or_else(|| Forerunner::unasked(left.may_open));
            let known = known.heard(heard, now);
            forerunners.insert(left.incarnation, known);
            all.push((left.clone(), known));
        }
        instance.count_left(&left);
        instance.looked.notify_waiters();
        Ok(all)
    }

    async fn try_to_succeed_at(&self, instance: &Arc<Instance>) -> Result<(), PoolerError> {
        still_ours(instance)?;
        let all = self.ask_all(instance).await?;
        let (now, grace) = (self.0.clock.uptime(), self.0.options.takeover_grace);
        for (left, known) in &all {
            let is_over = known.is_over(now, grace);
            // Much may have happened since the last one.
            still_ours(instance)?;
            // Where it is not known to be gone it may serve its sessions, as long as they have their connections.
            if left.sessions == 0 {
                // Nothing to go on with.
            } else if known.is_gone() {
                self.adopt(instance, left.incarnation, Taking::All).await?;
            } else {
                self.adopt(instance, left.incarnation, Taking::Parked).await?;
            }
            if known.has_nothing() && left.connections.is_empty() && left.sessions == 0 {
                let settled = self
                    .0
                    .store
                    .succession()
                    .settle(instance.id, left.incarnation)
                    .await;
                settled.map_err(store_error)?;
            }
            if !is_over {
                continue;
            }
            let buried = self.bury(instance, left).await?;
            if buried && !known.is_gone() && left.sessions > 0 {
                self.adopt(instance, left.incarnation, Taking::All).await?;
            }
            if buried && known.is_gone() {
                let succession = self.0.store.succession();
                let settled = succession.settle(instance.id, left.incarnation).await;
                settled.map_err(store_error)?;
                let leases = succession.bury_leases(instance.id, left.incarnation).await;
                leases.map_err(store_error)?;
            }
        }
        let left = self.0.instances.left_on(instance.id).await?;
        instance.count_left(&left);
        Ok(())
    }

    /// Asks another pooler to hand over.
    async fn ask(&self, instance: &Instance, left: &Left) -> Heard {
        let known = instance.forerunners.lock().get(&left.incarnation).copied();
        if known.is_some_and(Forerunner::is_gone) {
            return Heard::Gone;
        }
        let Some(address) = &left.address else {
            // It has signed off.
            return Heard::Gone;
        };
        let Some(term) = instance.term() else {
            // The instance is not ours any more: there is nothing to ask for.
            return Heard::Silence;
        };
        let peers = &self.0.options.peers;
        let heard = match peers.ask(address, left.incarnation, instance.id, term).await {
            Answer::HandingOver { connections } => Heard::HandingOver { connections },
            Answer::Gone => Heard::Gone,
            Answer::Silence => Heard::Silence,
        };
        if known.is_none_or(|known| known.heard(heard, self.0.clock.uptime()) != known) {
            tracing::info!(instance.id = %instance.id, pooler.incarnation = %left.incarnation, ?heard,
                "asked a pooler for an instance that is ours now");
        }
        heard
    }
}

fn still_ours(instance: &Instance) -> Result<(), PoolerError> {
    if instance.is_ours() {
        Ok(())
    } else {
        Err(PoolerError::Moved { owner: None })
    }
}
