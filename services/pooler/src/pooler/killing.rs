//! Ending sessions and closing backends of others.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::UserToken;
use domain::access::Permission;
use domain::id::InstanceId;
use domain::session::SessionName;
use tokio::time::timeout;

use super::Pooler;
use super::sessions::note;
use crate::error::{LossCause, PoolerError};
use crate::roster::Listing;

/// How long a caller waits for a session to end. It ends also when it takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Pooler {
    /// Ends a session, whosever it is. False where it is not here.
    pub(crate) async fn kill_session(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<bool, PoolerError> {
        self.caller(token, Permission::PoolsUpdate).await?;
        note(name);
        let Some(session) = self.0.registry.get(name) else {
            return Ok(false);
        };
        self.begin_close(&session, LossCause::Killed);
        if timeout(PATIENCE, session.ended()).await.is_err() {
            tracing::warn!(session.id = %name.session, "a session that was killed takes long to end");
        }
        Ok(true)
    }

    /// Closes a backend, whoever has it. False where it is not here.
    pub(crate) async fn kill_backend(
        &self,
        token: &UserToken,
        instance: InstanceId,
        process_id: i32,
    ) -> Result<bool, PoolerError> {
        self.caller(token, Permission::PoolsUpdate).await?;
        let id = self.0.instances.current(instance);
        let listing = self.0.roster.all().into_iter().find(|listing| {
            listing.process_id() == process_id && self.0.instances.current(listing.place.instance) == id
        });
        let Some(listing) = listing.filter(|_| process_id != 0) else {
            return Ok(false);
        };
        tracing::info!(instance.id = %id, backend.pid = process_id, "a backend is killed");
        listing.kill();
        self.close_resting(&listing);
        Ok(true)
    }

    /// Closes a backend that nobody has. The session it rests with is told.
    fn close_resting(&self, listing: &Arc<Listing>) {
        for instance in self.0.instances.all() {
            let taken = instance.idle.lock().take(|rested| {
                let other = rested.backend.listing();
                let is_it = other.is_some_and(|other| other.number() == listing.number());
                if is_it && let Some(session) = rested.session.and_then(|name| self.0.registry.get(name)) {
                    session.recover();
                }
                is_it
            });
            for rested in taken {
                self.close_later(rested.backend);
            }
        }
    }
}
