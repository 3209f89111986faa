//! Sessions that share backends: how they come by one, and what becomes of it when they need it no more.
//!
//! A backend rests with the session that used it last. Where others wait for connections it is contested: looked at,
//! and given back to that session if it holds state of it; else reset and handed to a session of the same user and
//! pool, or closed to make room.

mod contest;
mod rehoming;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use domain::limits::Limit;
use domain::random::bytes;
use domain::session::SessionName;
use store::sessions::Standing;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Pooler;
use super::opening::Dialed;
use crate::backend::{Backend, Untaken};
use crate::error::{Loss, LossCause, PoolerError, TargetError};
use crate::hold::Hold;
use crate::idle::{Own, Rested};
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::look::answers;
use crate::ownership;
use crate::pools::Pool;
use crate::session::{Audience, Keeping, Needs, Seat, Session, run_shared};
use crate::slots::Slot;

/// How long a contest may take before the session that waits for its outcome gives up.
const CONTEST: Duration = Duration::from_secs(30);
/// How often an instance may turn out to be another one while we connect, or a session get another credential.
const MOST_MERGES: usize = 3;

/// Why there is no backend for an execution.
#[derive(Debug)]
pub(crate) enum NoBackend {
    /// The execution was cancelled, or nobody waits for it any more.
    Cancelled,
    /// This stands in the way.
    Failed(PoolerError),
}

impl NoBackend {
    /// For callers who cannot cancel.
    pub(crate) fn into_error(self) -> PoolerError {
        match self {
            Self::Failed(error) => error,
            Self::Cancelled => PoolerError::ShuttingDown,
        }
    }
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
        // The claim ends under the lock: a backend that is being delivered is seen here or not handed over.
        let mut deliveries = self.instance.deliveries.lock();
        match deliveries.remove(&slot.ticket()) {
            Some(mut backend) => {
                backend.count_under(slot);
                backend.close_unseen();
            }
            None => drop(slot),
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
        match loss.cause {
            _ if session.facts.script.is_some() => {}
            // Nobody will ask here.
            LossCause::Drained => self.0.recorder.lost(session.written(), loss.cause),
            _ => self.0.recorder.ended(session.facts.name.session),
        }
    }

    /// Writes down how a session stands.
    pub(crate) fn note(&self, news: Standing) {
        self.0.recorder.note(news);
    }

    /// A backend for the session's next execution: its own where that rests, else another of its pool, else a new one.
    pub(crate) async fn check_out(
        &self,
        session: &Session,
        audience: Option<Audience>,
    ) -> Result<Seat, NoBackend> {
        let began = Instant::now();
        session.set_waits_since(Some(began));
        let seat = self.find_fitting(session, audience).await;
        session.set_waits_since(None);
        if let Ok(seat) = &seat {
            session.holds(&seat.backend);
            if let Some(listing) = seat.backend.listing() {
                listing.tally.assigned(began.elapsed());
            }
        }
        seat
    }

    /// A backend as [`Pooler::find`] finds it. How far the session may go may have changed while it waited: then another is looked
    /// for.
    async fn find_fitting(&self, session: &Session, audience: Option<Audience>) -> Result<Seat, NoBackend> {
        let rights = &session.facts.rights;
        let mut sought = rights.access();
        let mut seat = self.find(session, audience.as_ref()).await?;
        let Keeping::Auto { home, .. } = &session.facts.keeping else {
            return Ok(seat);
        };
        for _ in 0..MOST_MERGES {
            // Where its home is not of that access, it stayed there because the config database is away.
            if sought == rights.access() || home.access() == rights.access() {
                return Ok(seat);
            }
            sought = rights.access();
            let pool = match self.at_home(session, home).await {
                Ok(pool) => pool,
                Err(error) => {
                    self.leave_off(session, seat).await;
                    return Err(error.into());
                }
            };
            match self.fitting(session, seat, &pool).await {
                Some(fitting) => return Ok(fitting),
                None => seat = self.find(session, audience.as_ref()).await?,
            }
        }
        if sought == rights.access() || home.access() == rights.access() {
            return Ok(seat);
        }
        // Never one that was chosen for another access.
        self.leave_off(session, seat).await;
        Err(TargetError::Unreachable {
            reason: "how far the session may go keeps changing".into(),
        }
        .into())
    }

    /// Lets go of a backend that nothing was run on.
    async fn leave_off(&self, session: &Session, seat: Seat) {
        match session.facts.script {
            Some(_) => self.put_by(session, seat).await,
            None => self.check_in(session, seat),
        }
    }

    async fn find(&self, session: &Session, audience: Option<&Audience>) -> Result<Seat, NoBackend> {
        let Keeping::Auto { home, queue_timeout } = &session.facts.keeping else {
            return Err(NoBackend::Cancelled);
        };
        let began = Instant::now();
        let mut pool = self.at_home(session, home).await?;
        if let Some(seat) = self.own(session).await?
            && let Some(seat) = self.fitting(session, seat, &pool).await
        {
            return Ok(seat);
        }
        // Lost since the work was accepted: nothing has been run yet.
        if let Some(untold) = session.take_untold() {
            return Err(untold.into());
        }
        let mut instance = self.0.instances.at_hand(pool.key.instance).await?;
        let mut merges = 0;
        while merges < MOST_MERGES {
            let paused = instance.pause_time().is_some();
            if !paused && let Some(backend) = self.clean(&instance, &pool, session).await {
                return Ok(Seat { backend, instance });
            }
            // Where others have a backend it may come to us, whether or not another can be opened.
            if instance.slots.held_of_pool(pool.number) == 0 {
                instance.reach.lock().hope(Instant::now())?;
            }
            let longest = instance.limits().time(Limit::QueryWaitTimeout);
            let deadline = began + longest.min(*queue_timeout);
            let waited = wait(&instance, &pool, session, audience, deadline).await;
            let older = self.0.instances.current(instance.id);
            if waited.is_err() && older != instance.id && Instant::now() < deadline {
                // It turned out to be another one while we waited.
                merges += 1;
                instance = self.0.instances.own(older).await?;
                continue;
            }
            let slot = match waited? {
                Ok(backend) => return Ok(Seat { backend, instance }),
                Err(slot) => slot,
            };
            // Much may have happened in the queue.
            if session.facts.script.is_some() {
                self.takes_new()?;
            }
            if !instance.is_ours() {
                self.0.instances.own(instance.id).await?;
            }
            let Some(config) = self.connect_config(session, home, &pool).await? else {
                pool = home.pool();
                merges += 1;
                continue;
            };
            instance.attempt()?;
            let server = (pool.key.server, pool.key.kind);
            let dialed = self.dial(config, slot, Arc::clone(&instance), server).await;
            if let Err(PoolerError::Target(TargetError::TooManyClients { .. })) = &dialed
                && instance.slots.held_of_pool(pool.number) > 0
                && Instant::now() < deadline
            {
                // The server has no more for us: wait for one of those there are.
                continue;
            }
            match dialed? {
                Dialed::Here(backend, facts) if facts.is_pooler => {
                    backend.take().close().await;
                    return Err(TargetError::IsPooler.into());
                }
                Dialed::Here(backend, _) => {
                    let backend = self.shared(backend.take(), &pool, &instance);
                    return Ok(Seat { backend, instance });
                }
                Dialed::Elsewhere(other) => {
                    merges += 1;
                    instance = self.0.instances.own(other).await?;
                }
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
            if instance.pause_time().is_some() {
                self.give_up_idle(&instance);
            }
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
                    if let Some(backend) = self.awake(&instance, rested).await {
                        return Ok(Some(Seat { backend, instance }));
                    }
                    return Err(PoolerError::SessionRecovered {
                        current: session.recover_and_tell(),
                    }
                    .into());
                }
            }
        }
    }

    /// A backend of the pool that was reset.
    async fn clean(&self, instance: &Instance, pool: &Pool, session: &Session) -> Option<Backend> {
        loop {
            let rested = instance.idle.lock().clean(pool.number, session.facts.owner)?;
            if let Some(backend) = self.awake(instance, rested).await {
                return Some(backend);
            }
        }
    }

    /// A backend that rested, unless it died.
    async fn awake(&self, instance: &Instance, rested: Resting) -> Option<Backend> {
        let delay = instance.limits().time(Limit::ServerCheckDelay);
        let mut backend = rested.backend;
        let long = rested.since.elapsed() >= delay;
        if !backend.is_alive() {
            self.close_later(backend);
            return None;
        }
        // Whoever asks may go away meanwhile.
        let mut untaken = Untaken::new(backend);
        if long && !answers(untaken.connection()?).await {
            return None;
        }
        Some(untaken.take())
    }

    /// Makes a new backend one of a pool.
    fn shared(&self, mut backend: Backend, pool: &Arc<Pool>, instance: &Instance) -> Backend {
        let limits = instance.limits();
        let jitter = limits.time(Limit::ServerLifetimeJitter);
        let random = u64::from_le_bytes(bytes(&*self.0.random));
        let jitter = jitter.mul_f64((random % 1000) as f64 / 1000.0);
        let lifetime = limits.time_if_any(Limit::ServerLifetime);
        backend.retires = lifetime.map(|lifetime| Instant::now() + lifetime.saturating_sub(jitter));
        backend.hold = Hold::clean();
        backend.pool = Some(Arc::clone(pool));
        backend
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
    let slot = instance.slots.claim(claim_for(session, pool))?;
    session.set_waits_for(Some((instance.slots.clone(), slot.ticket())));
    let mut waiting = Waiting {
        instance,
        slot: Some(slot),
    };
    let timer = sleep_until(deadline);
    let left = instance.left.notified();
    tokio::pin!(timer, left);
    left.as_mut().enable();
    if instance.standing() == ownership::Standing::Superseded {
        return Err(PoolerError::Moved { owner: None }.into());
    }
    loop {
        // The bell rings for it.
        if session.is_falling() {
            let current = session.incarnation();
            return Err(PoolerError::ElevationEnded { current }.into());
        }
        let Some(slot) = &mut waiting.slot else {
            return Err(NoBackend::Cancelled);
        };
        let audience_ends = audience.and_then(Audience::deadline);
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
            () = &mut left => return Err(PoolerError::Moved { owner: None }.into()),
            () = sleep_until(audience_ends.unwrap_or(deadline)), if audience_ends.is_some() => {
                return Err(NoBackend::Cancelled);
            }
            () = &mut timer => {
                return Err(instance.slots.exhausted(session.facts.owner, began.elapsed()).into());
            }
        }
    }
}

fn claim_for(session: &Session, pool: &Pool) -> Claim {
    Claim {
        user: session.facts.owner,
        class: Class::Interactive,
        count: 1,
        holder: session.holder(),
        pool: Some(pool.number),
    }
}
