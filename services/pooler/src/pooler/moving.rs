//! Handing over: what a pooler does with an instance that is not its own any more.
//!
//! Nothing is opened. Sessions that nothing holds on a backend are let go of, each at the first moment that is so, and go
//! on at the instance's owner without noticing. Those that are held go on here until they are free, end, or time is up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::InstanceId;
use tokio::time::{Instant, sleep, timeout};

use super::Pooler;
use crate::error::{LossCause, PoolerError};
use crate::instances::Instance;
use crate::ownership::Standing;
use crate::session::Session;
use crate::status::store_error;

/// How long one try to give an instance back may hold up the rest.
const SHORT: Duration = Duration::from_secs(1);
/// Between two looks at what is still to be handed over.
const LOOK: Duration = Duration::from_millis(100);

impl Pooler {
    /// Hands over whatever there is to hand over, from the moment there is.
    pub(super) async fn hand_over_all(&self) {
        let mut since: HashMap<InstanceId, Instant> = HashMap::new();
        loop {
            self.0.handing_over.notified().await;
            loop {
                if self.takes_new().is_err() {
                    // Again, where it did not succeed: nobody else could serve them.
                    let _ = timeout(SHORT, self.0.instances.give_back()).await;
                }
                let leaving: Vec<_> = self.0.instances.all();
                let leaving = leaving
                    .into_iter()
                    .filter(|instance| instance.standing() == Standing::Superseded);
                let mut left = false;
                for instance in leaving {
                    let first = *since.entry(instance.id).or_insert_with(Instant::now);
                    let overdue = first.elapsed() >= self.0.options.drain_timeout;
                    left |= self.hand_over(&instance, overdue).await || instance.term().is_some();
                }
                if !left {
                    break;
                }
                sleep(LOOK).await;
            }
            since.clear();
        }
    }

    /// Lets go of what is free. True where something is left.
    async fn hand_over(&self, instance: &Arc<Instance>, overdue: bool) -> bool {
        // Whoever waits in the queue is served by the new owner.
        instance.left.notify_waiters();
        let contested = {
            let mut idle = instance.idle.lock();
            // What a session may have left on its backend is known only after a look.
            std::iter::from_fn(|| idle.contest_if(|rested| rested.session.is_some())).collect::<Vec<_>>()
        };
        for rested in contested {
            self.0
                .tasks
                .spawn(self.clone().contest(Arc::clone(instance), rested));
        }
        for rested in instance.idle.lock().take(|rested| rested.session.is_none()) {
            self.close_later(rested.backend);
        }
        let current = self.0.instances.known(instance.id);
        if current.is_some_and(|current| current.standing() == Standing::Owner) {
            // It turned out to be one that is ours: its sessions stay.
            return instance.slots.usage().total() > 0;
        }
        let here = |session: &Arc<Session>| {
            self.0.instances.current(session.facts.instance.id) == self.0.instances.current(instance.id)
        };
        let sessions: Vec<_> = self.0.registry.all().into_iter().filter(here).collect();
        if overdue {
            for session in &sessions {
                self.begin_close(session, LossCause::Drained);
            }
        } else {
            self.let_go(&sessions).await;
        }
        !sessions.is_empty() || instance.slots.usage().total() > 0
    }

    /// Lets go of those of the sessions that nothing holds.
    async fn let_go(&self, sessions: &[Arc<Session>]) {
        let moves: Vec<_> = sessions
            .iter()
            .filter_map(|session| {
                let standing = session.begin_move()?;
                Some((session, self.0.recorder.park(standing)))
            })
            .collect();
        for (session, written) in moves {
            let written = self.0.recorder.wait(written).await;
            if let Err(error) = self.end_move(session, written).await {
                tracing::debug!(%error, "a session could not be let go of and stays");
            }
        }
    }

    /// Lets go of a session whose execution came to nothing because the instance is not ours.
    pub(crate) async fn move_out(&self, session: &Session) -> Result<(), PoolerError> {
        let Some(standing) = session.begin_move() else {
            return Ok(());
        };
        let written = self.0.recorder.wait(self.0.recorder.park(standing)).await;
        self.end_move(session, written).await
    }

    async fn end_move(
        &self,
        session: &Session,
        written: Result<bool, PoolerError>,
    ) -> Result<(), PoolerError> {
        let is_gone = match written {
            Ok(true) => Ok(true),
            // Somebody has taken it already, or it is so new that it is not written down yet.
            Ok(false) => self.is_elsewhere(session).await,
            Err(error) => Err(error),
        };
        match is_gone {
            Ok(false) => {
                session.stays();
                Ok(())
            }
            Ok(true) => {
                tracing::debug!(session.id = %session.facts.name.session, "a session moves to another pooler");
                self.0.registry.moved(session);
                session.moved();
                Ok(())
            }
            Err(error) => {
                session.stays();
                // It may have been written all the same.
                self.0.recorder.note(session.written());
                Err(error)
            }
        }
    }

    /// Whether another pooler holds a session.
    async fn is_elsewhere(&self, session: &Session) -> Result<bool, PoolerError> {
        let found = self
            .0
            .store
            .sessions()
            .whereabouts(session.facts.name.session)
            .await;
        let found = found.map_err(store_error)?;
        Ok(found.is_some_and(|found| found.holder != self.0.me.incarnation))
    }
}
