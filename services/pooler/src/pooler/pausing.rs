//! PAUSE, RESUME, RECONNECT, and taking nothing new.
//!
//! That an instance is paused stands in the config database, so that it outlives its owner. A pooler reads it with each
//! heartbeat, with each claim of an instance, and when it is told to.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::UserToken;
use domain::access::Permission;
use domain::id::InstanceId;
use tokio::time::timeout;

use super::Pooler;
use crate::error::PoolerError;
use crate::instances::Instance;
use crate::roster::Use;
use crate::status::store_error;

/// How long a caller waits for instances to be given back. They are given back also when it takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Pooler {
    /// Reads an instance anew, where anything was ever asked of it here.
    pub(crate) async fn refresh_instance(
        &self,
        token: &UserToken,
        id: InstanceId,
    ) -> Result<(), PoolerError> {
        self.caller(token, Permission::PoolsUpdate).await?;
        let Some(instance) = self.0.instances.known(id) else {
            return Ok(());
        };
        let row = self.0.store.instances().get(instance.id).await;
        if let Some(row) = row.map_err(store_error)? {
            let before = instance.pause_time();
            instance.configure(&row);
            if before.is_some() != row.pause_time.is_some() {
                tracing::info!(instance.id = %id, paused = row.pause_time.is_some(), "an instance was paused or resumed");
            }
        }
        if instance.pause_time().is_some() {
            self.give_up_idle(&instance);
        }
        Ok(())
    }

    /// Contests every idle backend of an instance that is paused: what holds state of its session goes back to it.
    pub(super) fn give_up_idle(&self, instance: &Arc<Instance>) {
        loop {
            let Some(rested) = instance.idle.lock().contest_if(|_| true) else {
                return;
            };
            let contest = self.clone().contest(Arc::clone(instance), rested);
            self.0.tasks.spawn(contest);
        }
    }

    /// Has every backend of an instance closed when it is free next. Returns how many there are.
    pub(crate) async fn reconnect_instance(
        &self,
        token: &UserToken,
        id: InstanceId,
    ) -> Result<usize, PoolerError> {
        self.caller(token, Permission::PoolsUpdate).await?;
        let id = self.0.instances.current(id);
        let mut marked = 0;
        for listing in self.0.roster.all() {
            let is_there = self.0.instances.current(listing.place.instance) == id;
            if is_there && !matches!(listing.standing().used_for, Use::Closing) {
                listing.close_when_free();
                marked += 1;
            }
        }
        tracing::info!(instance.id = %id, backends = marked, "the backends of an instance are replaced");
        // Those at rest are free.
        self.sweep();
        Ok(marked)
    }

    /// Takes nothing new from now on and gives its instances back, as while draining.
    pub(crate) async fn take_nothing_new(&self, token: &UserToken) -> Result<(), PoolerError> {
        self.caller(token, Permission::PoolsUpdate).await?;
        if self.takes_new().is_err() {
            return Ok(());
        }
        self.0.draining.cancel();
        tracing::info!(
            sessions = self.session_count(),
            "an administrator has this pooler drain"
        );
        let pooler = self.clone();
        // To its end, whether the caller waits for it or not.
        let leaving = self.0.tasks.spawn(async move {
            pooler.0.instances.give_back().await;
            pooler.0.handing_over.notify_one();
            // Others are to know at once. Where that fails they know with the next heartbeat.
            let told = timeout(pooler.0.options.lease / 3, pooler.beat_once()).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::warn!("the heartbeat that says so failed; another follows");
            }
        });
        if timeout(PATIENCE, leaving).await.is_err() {
            tracing::warn!("instances take long to be given back");
        }
        Ok(())
    }
}
