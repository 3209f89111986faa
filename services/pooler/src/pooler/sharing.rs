//! Sessions that share backends: how they come by one, and what becomes of it when they need it no more.
//!
//! A backend rests with the session that used it last. Where others wait for connections it is contested: looked at,
//! and given back to that session if it holds state of it; else reset and handed to a session of the same user and
//! pool, or closed to make room.

use std::sync::Arc;
use std::time::Duration;

use domain::session::SessionName;
use pgconn::ConnectConfig;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Pooler;
use super::opening::Dialed;
use crate::backend::Backend;
use crate::error::{Loss, LossCause, PoolerError, TargetError};
use crate::hold::Hold;
use crate::idle::{Own, Rested};
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::look::{LookError, look, reset};
use crate::pools::{Pool, Registration};
use crate::session::{Audience, Keeping, Needs, Seat, Session, run_shared};
use crate::slots::{Slot, SlotRefused};

/// How long an idle backend is kept. PgBouncer's `server_idle_timeout`.
const SERVER_IDLE: Duration = Duration::from_secs(600);
/// How long a contest may take before the session that waits for its outcome gives up.
const CONTEST: Duration = Duration::from_secs(30);
/// How often an instance may turn out to be another one while we connect.
const MOST_MERGES: usize = 3;

/// Why there is no backend for an execution.
#[derive(Debug)]
pub(crate) enum NoBackend {
    /// The execution was cancelled, or nobody waits for it any more.
    Cancelled,
    /// This stands in the way.
    Failed(PoolerError),
}

impl<E: Into<PoolerError>> From<E> for NoBackend {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

type Resting = Rested<SessionName, Backend>;

/// A claim that waits, to which a backend may be delivered together with its connection.
struct Waiting<'a> {
    instance: &'a Instance,
    slot: Option<Slot>,
}

impl Waiting<'_> {
    /// Takes what was granted: a backend as it is, or a slot to open one.
    fn take(mut self) -> Option<Result<Backend, Slot>> {
        let slot = self.slot.take()?;
        let delivered = self.instance.deliveries.lock().remove(&slot.ticket());
        Some(match delivered {
            Some(mut backend) => {
                backend.count_under(slot);
                Ok(backend)
            }
            None => Err(slot),
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // Under the lock: a backend that is being delivered is seen here or not handed over.
        let mut deliveries = self.instance.deliveries.lock();
        if let Some(mut backend) = deliveries.remove(&slot.ticket()) {
            backend.count_under(slot);
            backend.close_unseen();
        }
    }
}

impl Pooler {
    /// Sees to it that a session is served.
    pub(crate) fn serve(&self, session: &Arc<Session>, needs: Needs) {
        if needs == Needs::Task {
            self.0.tasks.spawn(run_shared(Arc::clone(session), self.clone()));
        }
    }

    /// Takes a session off the books.
    pub(crate) fn forget(&self, session: &Session, loss: Loss) {
        self.0.registry.end(session, loss);
    }

    /// A backend for the session's next execution: its own where that rests, else another of its pool, else a new one.
    pub(crate) async fn check_out(
        &self,
        session: &Session,
        audience: Option<Audience>,
    ) -> Result<Seat, NoBackend> {
        let Keeping::Auto { pool, queue_timeout } = &session.facts.keeping else {
            return Err(NoBackend::Cancelled);
        };
        let deadline = Instant::now() + *queue_timeout;
        if let Some(seat) = self.own(session).await? {
            return Ok(seat);
        }
        let mut instance = self.0.instances.at_hand(pool.key.instance).await?;
        for _ in 0..MOST_MERGES {
            if let Some(backend) = self.clean(&instance, pool, session) {
                return Ok(Seat { backend, instance });
            }
            let slot = match wait(&instance, pool, session, audience.as_ref(), deadline).await? {
                Ok(backend) => return Ok(Seat { backend, instance }),
                Err(slot) => slot,
            };
            // Much may have happened in the queue.
            if !instance.is_ours() {
                self.0.instances.own(instance.id).await?;
            }
            let config = self.connect_config(pool).await?;
            match self
                .dial(config, slot, Arc::clone(&instance), pool.key.server)
                .await?
            {
                Dialed::Here(backend, facts) if facts.is_pooler => {
                    backend.close().await;
                    return Err(TargetError::IsPooler.into());
                }
                Dialed::Here(mut backend, _) => {
                    backend.hold = Hold::clean();
                    backend.pool = Some(Arc::clone(pool));
                    let backend = *backend;
                    return Ok(Seat { backend, instance });
                }
                Dialed::Elsewhere(other) => instance = self.0.instances.own(other).await?,
            }
        }
        Err(TargetError::Unreachable {
            reason: "the instance keeps changing its identity".into(),
        }
        .into())
    }

    /// The backend that rests with the session.
    async fn own(&self, session: &Session) -> Result<Option<Seat>, NoBackend> {
        let give_up = Instant::now() + CONTEST;
        loop {
            if let Some(seat) = session.take_returned() {
                return Ok(Some(seat));
            }
            let Some(instance) = session.rests_at() else {
                return Ok(None);
            };
            let place = Arc::clone(&instance);
            let settled = place.settled.notified();
            tokio::pin!(settled);
            // From here on nothing is missed.
            settled.as_mut().enable();
            let own = instance.idle.lock().own(session.facts.name);
            match own {
                Own::Contested => {
                    if timeout_at(give_up, settled).await.is_err() {
                        return Err(TargetError::Unreachable {
                            reason: "a backend does not say what it holds".to_owned(),
                        }
                        .into());
                    }
                }
                Own::Nothing => {
                    session.set_rests_at(None);
                    // Given back since we looked.
                    return Ok(session.take_returned());
                }
                Own::Backend(rested) => {
                    session.set_rests_at(None);
                    let mut backend = rested.backend;
                    if backend.is_alive() {
                        return Ok(Some(Seat { backend, instance }));
                    }
                    self.close_later(backend);
                    return Err(PoolerError::SessionRecovered {
                        current: session.recover_and_tell(),
                    }
                    .into());
                }
            }
        }
    }

    /// A backend of the pool that was reset.
    fn clean(&self, instance: &Instance, pool: &Pool, session: &Session) -> Option<Backend> {
        loop {
            let rested = instance.idle.lock().clean(pool.number, session.facts.owner)?;
            let mut backend = rested.backend;
            if backend.is_alive() {
                return Some(backend);
            }
            self.close_later(backend);
        }
    }

    /// How to connect, by the registration as it is now; as it was last known while the config database is away.
    async fn connect_config(&self, pool: &Pool) -> Result<ConnectConfig, PoolerError> {
        let known = match self.registration(pool.key.server).await {
            Ok(Some(registration)) => {
                let server = &registration.server;
                let instances = &self.0.instances;
                if server.username != pool.key.username
                    || instances.current(server.instance_id) != instances.current(pool.key.instance)
                {
                    return Err(changed());
                }
                pool.registration.lock().clone_from(&registration);
                registration
            }
            Ok(None) => return Err(changed()),
            Err(PoolerError::ConfigDatabase) => pool.registration.lock().clone(),
            Err(error) => return Err(error),
        };
        let Registration { server, credential } = known;
        let parameters = pool.key.parameters.clone();
        self.0
            .connector
            .prepare(&server, credential.as_ref(), Some(&pool.key.database), parameters)
            .await
    }

    /// Lets a backend rest with its session.
    pub(crate) fn check_in(&self, session: &Session, seat: Seat) {
        let Seat { backend, instance } = seat;
        let Some(pool) = session.pool() else { return };
        session.set_rests_at(Some(Arc::clone(&instance)));
        instance.idle.lock().rest(Rested {
            backend,
            pool: pool.number,
            user: session.facts.owner,
            session: Some(session.facts.name),
            since: Instant::now(),
        });
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
        let Some(Seat {
            mut backend,
            instance,
        }) = left
        else {
            return;
        };
        let idle = backend.connection.is_quiet() && backend.hold.pins().is_empty();
        if idle && backend.hold.can_be_reset() && reset(&mut backend.connection).await.is_ok() {
            self.rest_clean(&instance, backend, session);
        } else {
            backend.close().await;
        }
    }

    fn rest_clean(&self, instance: &Arc<Instance>, mut backend: Backend, session: &Session) {
        let Some(pool) = session.pool() else { return };
        backend.hold = Hold::clean();
        backend.slot().reclassify(Class::Interactive);
        instance.idle.lock().rest(Rested {
            backend,
            pool: pool.number,
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
            let wanted = instance.slots.wanted();
            let taken = {
                let mut idle = instance.idle.lock();
                if idle.contests() >= wanted {
                    return;
                }
                idle.contest(|rested| instance.slots.has_heir(rested.backend.slot(), rested.pool))
            };
            let Some(rested) = taken else { return };
            self.0
                .tasks
                .spawn(self.clone().contest(Arc::clone(instance), rested));
        }
    }

    /// Takes a backend from the session it rests with, unless it holds state of that session.
    async fn contest(self, instance: Arc<Instance>, rested: Resting) {
        let session = rested.session;
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
            Some(session) => match session.give_back(seat) {
                Ok(needs) => self.serve(&session, needs),
                Err(seat) => self.close_later(seat.backend),
            },
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
        let can_be_reset = backend.hold.can_be_reset() && backend.is_alive();
        if wanted && can_be_reset && (session.is_none() || reset(&mut backend.connection).await.is_ok()) {
            backend.hold = Hold::clean();
            let mut deliveries = instance.deliveries.lock();
            if let Some(heir) = instance.slots.hand_over(backend.slot(), pool) {
                deliveries.insert(heir, backend);
                return;
            }
            drop(deliveries);
            if instance.slots.wanted() == 0 {
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

    /// Ends sessions and backends whose time is over. Called every second.
    pub(super) fn sweep(&self) {
        for session in self.0.registry.all() {
            if session.pool().is_some() {
                let needs = session.expire();
                self.serve(&session, needs);
            }
        }
        for instance in self.0.instances.all() {
            let (mut dead, mut old) = (Vec::new(), Vec::new());
            {
                let mut idle = instance.idle.lock();
                dead.extend(idle.take(|rested| !rested.backend.is_alive()));
                while let Some(rested) = idle.contest_if(|rested| rested.since.elapsed() >= SERVER_IDLE) {
                    old.push(rested);
                }
            }
            for rested in dead {
                if let Some(session) = rested.session.and_then(|name| self.0.registry.get(name)) {
                    session.recover();
                }
                self.close_later(rested.backend);
            }
            for rested in old {
                self.0
                    .tasks
                    .spawn(self.clone().contest(Arc::clone(&instance), rested));
            }
        }
    }

    /// Closes what rests. Called at the end, when nobody takes it any more.
    pub(super) fn close_idle(&self) {
        for instance in self.0.instances.all() {
            for rested in instance.idle.lock().take(|_| true) {
                self.close_later(rested.backend);
            }
        }
    }

    /// Contests idle backends of every instance where connections are wanted.
    pub(super) async fn relieve_all(&self) {
        loop {
            self.0.instances.pressure.notified().await;
            for instance in self.0.instances.all() {
                self.relieve(&instance);
            }
        }
    }
}

/// Waits for a connection: with a backend that somebody needs no more, or to open one.
async fn wait(
    instance: &Instance,
    pool: &Pool,
    session: &Session,
    audience: Option<&Audience>,
    deadline: Instant,
) -> Result<Result<Backend, Slot>, NoBackend> {
    let began = Instant::now();
    let slot = instance.slots.claim(Claim {
        user: session.facts.owner,
        class: Class::Interactive,
        count: 1,
        holder: session.facts.name.to_string(),
        pool: Some(pool.number),
    })?;
    session.set_waits_for(Some((instance.slots.clone(), slot.ticket())));
    let mut waiting = Waiting {
        instance,
        slot: Some(slot),
    };
    let timer = sleep_until(deadline);
    tokio::pin!(timer);
    loop {
        let Some(slot) = &mut waiting.slot else {
            return Err(NoBackend::Cancelled);
        };
        tokio::select! {
            biased;
            granted = slot.granted() => {
                granted?;
                return waiting.take().ok_or(NoBackend::Cancelled);
            }
            () = session.bell() => {
                if let Some(loss) = session.end() {
                    return Err(PoolerError::StateLost(loss).into());
                }
                if session.is_cancelled() || audience.is_some_and(Audience::is_gone) {
                    return Err(NoBackend::Cancelled);
                }
            }
            () = &mut timer => {
                let view = Box::new(instance.slots.view(session.facts.owner));
                let waited = began.elapsed();
                return Err(SlotRefused::Exhausted { waited, view }.into());
            }
        }
    }
}

fn changed() -> PoolerError {
    PoolerError::StateLost(Loss {
        cause: LossCause::ServerChanged,
        pins: domain::pin::Pins::NONE,
    })
}
