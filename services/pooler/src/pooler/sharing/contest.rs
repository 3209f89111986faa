//! What becomes of a backend that its session needs no more for now.

use std::sync::Arc;

use tokio::time::Instant;

use super::Resting;
use crate::backend::Backend;
use crate::hold::Hold;
use crate::idle::Rested;
use crate::instances::Instance;
use crate::ledger::Class;
use crate::look::{LookError, look, reset};
use crate::pooler::Pooler;
use crate::roster::Use;
use crate::session::{Seat, Session};

impl Pooler {
    /// Lets a backend rest with its session.
    pub(crate) fn check_in(&self, session: &Session, seat: Seat) {
        let Seat { backend, instance } = seat;
        let Some(pool) = backend.pool.as_ref().map(|pool| pool.number) else {
            return;
        };
        session.set_rests_at(Some(Arc::clone(&instance)));
        let name = session.facts.name;
        let is_old = instance.gives_up(&backend);
        backend.set_use(Use::Resting(Some(name)));
        let old = {
            let mut idle = instance.idle.lock();
            idle.rest(Rested {
                backend,
                pool,
                user: session.facts.owner,
                session: Some(name),
                since: Instant::now(),
            });
            is_old.then(|| idle.contest_if(|rested| rested.session == Some(name)))
        };
        if let Some(old) = old.flatten() {
            self.0
                .tasks
                .spawn(self.clone().contest(Arc::clone(&instance), old));
        }
        // At once: the session's next execution, which may come any moment, must not be before those who wait.
        self.relieve(&instance);
    }

    /// Takes what a session that has ended leaves behind.
    pub(crate) async fn part(&self, session: &Session, held: Option<Seat>) {
        let left = match held {
            Some(seat) => Some(seat),
            // A fault here means that the backend is gone.
            None => self.own(session).await.unwrap_or_default(),
        };
        if let Some(seat) = left {
            self.put_by(session, seat).await;
        }
    }

    /// Resets a backend that its session needs no more, for others of its pool. One that cannot be is closed.
    pub(super) async fn put_by(&self, session: &Session, seat: Seat) {
        let Seat {
            mut backend,
            instance,
        } = seat;
        backend.set_use(Use::Tested);
        let idle = backend.connection.is_quiet() && backend.hold.pins().is_empty();
        if idle
            && !self.is_closing()
            && !instance.gives_up(&backend)
            && backend.hold.can_be_reset()
            && reset(&mut backend.connection).await.is_ok()
        {
            self.rest_clean(&instance, backend, session);
        } else {
            backend.close().await;
        }
    }

    pub(super) fn rest_clean(&self, instance: &Arc<Instance>, mut backend: Backend, session: &Session) {
        let Some(pool) = backend.pool.as_ref().map(|pool| pool.number) else {
            return;
        };
        if self.is_closing() || instance.gives_up(&backend) {
            self.close_later(backend);
            return;
        }
        backend.hold = Hold::clean();
        backend.set_use(Use::Resting(None));
        backend.slot().reclassify(Class::Interactive);
        instance.idle.lock().rest(Rested {
            backend,
            pool,
            user: session.facts.owner,
            session: None,
            since: Instant::now(),
        });
        self.relieve(instance);
    }

    /// Closes a backend without making anybody wait.
    pub(crate) fn close_later(&self, backend: Backend) {
        self.0.tasks.spawn(backend.close());
    }

    /// Contests idle backends for as many connections as are wanted.
    pub(crate) fn relieve(&self, instance: &Arc<Instance>) {
        loop {
            let (wanted, waiting) = (instance.slots.wanted(), instance.slots.waiting());
            let taken = {
                let mut idle = instance.idle.lock();
                let has_heir = |rested: &Resting| instance.slots.has_heir(rested.backend.slot(), rested.pool);
                if idle.contests() < wanted {
                    idle.contest(has_heir)
                } else if idle.contests() < waiting {
                    // Who waits for a place in a full pool is helped by a backend of that pool only.
                    idle.contest_if(has_heir)
                } else {
                    return;
                }
            };
            let Some(rested) = taken else { return };
            self.0
                .tasks
                .spawn(self.clone().contest(Arc::clone(instance), rested));
        }
    }

    /// Takes a backend from the session it rests with, unless it holds state of that session.
    pub(in crate::pooler) async fn contest(self, instance: Arc<Instance>, rested: Resting) {
        let session = rested.session;
        rested.backend.set_use(Use::Tested);
        let freed = self.free(&instance, rested).await;
        // Whatever came of it, the session need not wait for it any more.
        instance.idle.lock().settle(session);
        instance.settled.notify_waiters();
        if let Some(rested) = freed {
            self.pass_on(&instance, rested).await;
        }
        instance.idle.lock().contest_over();
        self.relieve(&instance);
    }

    /// Looks at a backend. It is returned if its session leaves nothing there; else it is back with its session, or gone.
    async fn free(&self, instance: &Arc<Instance>, mut rested: Resting) -> Option<Resting> {
        let Some(name) = rested.session.filter(|_| rested.backend.hold.is_used()) else {
            return Some(rested);
        };
        let backend = &mut rested.backend;
        match look(&mut backend.connection, &backend.baseline, drop).await {
            Ok(found) => backend.hold.found(found),
            Err(LookError::Refused) => backend.hold.hidden(),
            Err(LookError::Lost) => {
                if let Some(session) = self.0.registry.get(name) {
                    session.recover();
                }
                self.close_later(rested.backend);
                return None;
            }
        }
        if rested.backend.hold.pins().is_empty() {
            return Some(rested);
        }
        let backend = rested.backend;
        tracing::debug!(session.id = %name.session, pins = %backend.hold.pins(), "a backend goes back to its session");
        backend.slot().reclassify(Class::Pinned);
        let instance = Arc::clone(instance);
        let seat = Seat { backend, instance };
        match self.0.registry.get(name) {
            Some(session) => {
                session.holds(&seat.backend);
                match session.give_back(seat) {
                    Ok(needs) => self.serve(&session, needs),
                    Err(seat) => self.close_later(seat.backend),
                }
            }
            None => self.close_later(seat.backend),
        }
        None
    }

    /// Hands a backend that nothing was left in to whoever waits for one like it, or makes room.
    async fn pass_on(&self, instance: &Instance, rested: Resting) {
        let Rested {
            mut backend,
            pool,
            user,
            session,
            ..
        } = rested;
        let wanted = instance.slots.has_heir(backend.slot(), pool);
        let can_be_reset = backend.hold.can_be_reset() && !instance.gives_up(&backend) && backend.is_alive();
        if wanted && can_be_reset && (session.is_none() || reset(&mut backend.connection).await.is_ok()) {
            backend.hold = Hold::clean();
            let mut deliveries = instance.deliveries.lock();
            if let Some(heir) = instance.slots.hand_over(backend.slot(), pool) {
                deliveries.insert(heir, backend);
                return;
            }
            drop(deliveries);
            if instance.slots.wanted() == 0 && !self.is_closing() && !instance.gives_up(&backend) {
                backend.set_use(Use::Resting(None));
                instance.idle.lock().rest(Rested {
                    backend,
                    pool,
                    user,
                    session: None,
                    since: Instant::now(),
                });
                return;
            }
        }
        backend.close().await;
    }

    /// Contests idle backends of every instance where connections are wanted.
    pub(in crate::pooler) async fn relieve_all(&self) {
        loop {
            self.0.instances.pressure.notified().await;
            for instance in self.0.instances.all() {
                self.relieve(&instance);
            }
        }
    }
}
