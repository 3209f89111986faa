//! The instances this pooler has to do with: the slots of each, what is known of it, and whether it is ours.
//!
//! Ownership: an instance is claimed in the config database before the first connection and renewed by heartbeats; see
//! [`crate::ownership`]. Before a claim counts, what other poolers left is counted in its slots.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::clock::Clock;
use domain::id::{IncarnationId, InstanceId};
use domain::limits::{Limit, Limits};
use domain::session::{PoolerId, SessionName};
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use store::instance_owners::{Claim, ClaimError, Claimant};
use store::instances::Facts;
use store::succession::Forerunner as Left;
use store::{Store, StoreError};
use time::OffsetDateTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::backend::Backend;
use crate::error::{PoolerError, TargetError};
use crate::forerunner::{Forerunner, MOST_IN_FLIGHT};
use crate::idle::Idle;
use crate::ledger::{Budget, Ticket};
use crate::ownership::{Ownership, Standing, Uptime};
use crate::pooler::Useless;
use crate::reach::Reach;
use crate::slots::Slots;
use crate::status::store_error;

/// How often an instance may turn out to be another one while it is looked for.
const MOST_MERGES: usize = 4;
/// How long connections may take to be opened and recorded before an instance is given back.
const IN_FLIGHT: Duration = Duration::from_secs(15);

/// Who this pooler is.
#[derive(Debug, Clone)]
pub(crate) struct SelfId {
    pub(crate) pooler: PoolerId,
    pub(crate) incarnation: IncarnationId,
    pub(crate) lease: Duration,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) slots: Slots,
    /// Its backends that nobody uses.
    pub(crate) idle: Mutex<Idle<SessionName, Backend>>,
    /// Backends on their way to a claim that waits.
    pub(crate) deliveries: Mutex<HashMap<Ticket, Backend>>,
    /// Rung when a contest for an idle backend is settled.
    pub(crate) settled: Notify,
    /// Rung while it is handed over: nobody waits for it here any more.
    pub(crate) left: Notify,
    /// Whether its server can be reached.
    pub(crate) reach: Mutex<Reach>,
    /// What others left is looked at by one task at a time.
    pub(crate) succeeding: Arc<tokio::sync::Mutex<()>>,
    /// Rung after each such look.
    pub(crate) looked: Notify,
    /// Registrations that could not tell what became of others' connections.
    pub(crate) useless: Mutex<Useless>,
    /// Held from taking sessions over until they are here.
    pub(crate) adopting: Arc<tokio::sync::Mutex<()>>,
    /// Other poolers that left something here.
    pub(crate) forerunners: Mutex<HashMap<IncarnationId, Forerunner>>,
    limits: Mutex<Limits>,
    /// Since when it is paused.
    pause_time: Mutex<Option<OffsetDateTime>>,
    ownership: Mutex<Ownership>,
    /// Connections may be opened, so many at a time.
    openings: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    known: Mutex<Option<Facts>>,
    /// Whether it was asked who it is. Until then one connection is opened at a time: it may be an instance that others
    /// are connected to under another name, with a budget of its own.
    introduced: AtomicBool,
    introducing: tokio::sync::Mutex<()>,
    /// Claims of one instance go one after the other.
    claiming: tokio::sync::Mutex<()>,
}

impl Instance {
    fn new(id: InstanceId, pressure: Arc<Notify>, clock: Arc<dyn Clock>) -> Self {
        Self {
            id,
            slots: Slots::new(Budget::DEFAULT, pressure),
            idle: Mutex::new(Idle::new()),
            deliveries: Mutex::default(),
            settled: Notify::new(),
            left: Notify::new(),
            reach: Mutex::default(),
            succeeding: Arc::default(),
            looked: Notify::new(),
            useless: Mutex::default(),
            adopting: Arc::default(),
            forerunners: Mutex::default(),
            limits: Mutex::default(),
            pause_time: Mutex::default(),
            ownership: Mutex::default(),
            openings: Arc::new(Semaphore::new(MOST_IN_FLIGHT as usize)),
            clock,
            known: Mutex::default(),
            introduced: AtomicBool::new(false),
            introducing: tokio::sync::Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
        }
    }

    /// How its backends are pooled, and how long anything may take.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// Says whether to try to connect now.
    pub(crate) fn attempt(&self) -> Result<(), TargetError> {
        let patience = self.limits().time(Limit::ServerConnectTimeout);
        self.reach.lock().attempt(Instant::now(), patience)
    }

    /// Since when nobody is given a backend, if so.
    pub(crate) fn pause_time(&self) -> Option<OffsetDateTime> {
        *self.pause_time.lock()
    }

    /// True where a backend that nobody needs is to be closed.
    pub(crate) fn gives_up(&self, backend: &Backend) -> bool {
        backend.is_old() || self.pause_time().is_some()
    }

    /// Takes over what the config database says.
    pub(crate) fn configure(&self, row: &store::instances::Instance) {
        *self.limits.lock() = row.limits;
        *self.pause_time.lock() = row.pause_time;
        self.slots.set_paused(row.pause_time.is_some());
        self.slots.set_budget(budget(row));
        self.slots
            .set_reserve_after(row.limits.time_if_any(Limit::ReservePoolTimeout));
    }

    /// True where connections to it may be opened.
    pub(crate) fn is_ours(&self) -> bool {
        self.standing() == Standing::Owner
    }

    pub(crate) fn standing(&self) -> Standing {
        self.ownership.lock().standing(self.clock.uptime())
    }

    /// The term in which it is, or was, claimed.
    pub(crate) fn term(&self) -> Option<u64> {
        self.ownership.lock().term()
    }

    /// Changes how it stands with us.
    fn turn(&self, change: impl FnOnce(Ownership) -> Ownership) -> Ownership {
        let mut ownership = self.ownership.lock();
        *ownership = change(*ownership);
        *ownership
    }

    /// Another pooler owns it in this term. False where that is no news.
    pub(crate) fn superseded(&self, by: u64) -> bool {
        let mut ownership = self.ownership.lock();
        let after = ownership.superseded(by);
        std::mem::replace(&mut *ownership, after) != after
    }

    /// Waits for the right to open a connection, and looks whether it is still ours then.
    pub(crate) async fn opening(&self) -> Result<OwnedSemaphorePermit, PoolerError> {
        let permit = Arc::clone(&self.openings).acquire_owned().await;
        let permit = permit.map_err(|closed| crate::status::internal(&closed))?;
        match self.standing() {
            Standing::Owner => Ok(permit),
            Standing::Lapsed => Err(PoolerError::ConfigDatabase),
            Standing::Stranger | Standing::Superseded => Err(PoolerError::Moved { owner: None }),
        }
    }

    /// Waits until nobody else opens the first connection to it. Nothing once that was done.
    pub(crate) async fn introduction(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.introduced.load(Ordering::Relaxed) {
            return None;
        }
        let alone = self.introducing.lock().await;
        (!self.introduced.load(Ordering::Relaxed)).then_some(alone)
    }

    /// It said who it is, or cannot.
    pub(crate) fn introduced(&self) {
        self.introduced.store(true, Ordering::Relaxed);
    }

    /// Waits until nothing is being opened, and everything that was is recorded.
    pub(crate) async fn nothing_in_flight(&self) {
        // An error means that nothing can ever be.
        let _ = self.openings.acquire_many(MOST_IN_FLIGHT).await;
    }

    /// Counts what others left, by what is known of them.
    pub(crate) fn count_left(&self, left: &[Left]) {
        let mut forerunners = self.forerunners.lock();
        forerunners.retain(|incarnation, _| left.iter().any(|left| left.incarnation == *incarnation));
        let mut counted = 0_u32;
        for left in left {
            let forerunner = forerunners
                .entry(left.incarnation)
                .or_insert_with(|| Forerunner::unasked(left.may_open));
            let recorded = u32::try_from(left.connections.len()).unwrap_or(u32::MAX);
            counted = counted.saturating_add(forerunner.counted(recorded) + left.leased_slots);
        }
        drop(forerunners);
        self.slots.set_elsewhere(counted);
    }

    /// True where these facts are not yet in the config database.
    pub(crate) fn is_news(&self, facts: &Facts) -> bool {
        self.known.lock().as_ref() != Some(facts)
    }

    pub(crate) fn note(&self, facts: Facts) {
        *self.known.lock() = Some(facts);
    }
}

/// Whether heartbeats reach the config database.
#[derive(Debug, Clone, Copy)]
enum Health {
    /// They do, since the pooler began.
    New { since: Uptime },
    /// They do not.
    Failing,
    /// They do again.
    Back { since: Uptime },
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Instances {
    store: Store,
    me: SelfId,
    clock: Arc<dyn Clock>,
    health: Mutex<Health>,
    /// Nothing is claimed any more.
    leaving: AtomicBool,
    by_id: RwLock<HashMap<InstanceId, Arc<Instance>>>,
    /// Instances that turned out to be another.
    merged: RwLock<HashMap<InstanceId, InstanceId>>,
    /// Rung when an instance's connections are wanted elsewhere: see [`Slots`].
    pub(crate) pressure: Arc<Notify>,
    /// Rung when an instance was claimed where others left something.
    pub(crate) inherited: Notify,
}

impl Instances {
    pub(crate) fn new(store: Store, me: SelfId, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            me,
            health: Mutex::new(Health::New {
                since: clock.uptime(),
            }),
            clock,
            leaving: AtomicBool::new(false),
            by_id: RwLock::default(),
            merged: RwLock::default(),
            pressure: Arc::default(),
            inherited: Notify::new(),
        }
    }

    /// The instance, once it is ours, with its budget as it stands in the config database.
    pub(crate) async fn own(&self, id: InstanceId) -> Result<Arc<Instance>, PoolerError> {
        let mut id = self.current(id);
        // It may turn out to be yet another one while it is followed, and at any moment.
        for _ in 0..MOST_MERGES {
            match self.own_as(id).await? {
                Some(instance) => return Ok(instance),
                None => id = self.follow(id).await?,
            }
        }
        Err(PoolerError::NotFound {
            resource: format!("instances/{id}"),
        })
    }

    /// The instance of that id; nothing where there is none any more.
    async fn own_as(&self, id: InstanceId) -> Result<Option<Arc<Instance>>, PoolerError> {
        let Some(row) = self.store.instances().get(id).await.map_err(store_error)? else {
            return Ok(None);
        };
        let instance = self.get_or_add(id);
        instance.configure(&row);
        if !instance.is_ours() {
            let _claiming = instance.claiming.lock().await;
            if !instance.is_ours() && !self.claim(&instance).await? {
                return Ok(None);
            }
        }
        Ok(Some(instance))
    }

    /// Counts the connections of `younger` under `older` from now on: they are one.
    pub(crate) fn merge(&self, older: InstanceId, younger: InstanceId) {
        if younger == older || self.merged.read().contains_key(&younger) {
            return;
        }
        self.merged.write().insert(younger, older);
        let younger = self.by_id.read().get(&younger).cloned();
        if let Some(younger) = younger {
            self.get_or_add(older).slots.absorb(&younger.slots);
            // Whoever waits for it does so in vain, and its idle backends are wanted back.
            younger.left.notify_waiters();
            self.pressure.notify_one();
        }
    }

    /// The instance that `id` has turned out to be, to another pooler perhaps.
    pub(crate) async fn follow(&self, id: InstanceId) -> Result<InstanceId, PoolerError> {
        let merged = self.store.succession().merged(&[self.current(id)]).await;
        for (younger, older) in merged.map_err(store_error)? {
            self.merge(older, younger);
        }
        Ok(self.current(id))
    }

    /// Learns which of the instances that are known here turned out to be another to other poolers.
    pub(crate) async fn learn_merges(&self) -> Result<(), StoreError> {
        let known: Vec<_> = self.all().iter().map(|instance| instance.id).collect();
        for (younger, older) in self.store.succession().merged(&known).await? {
            if self.current(younger) == younger {
                tracing::info!(instance.id = %younger, %older, "an instance turned out to be another one");
                self.merge(older, younger);
            }
        }
        Ok(())
    }

    /// The instance that `id` has turned out to be.
    pub(crate) fn current(&self, id: InstanceId) -> InstanceId {
        let merged = self.merged.read();
        let mut current = id;
        // Older instances only: there is no way round in circles.
        while let Some(older) = merged.get(&current) {
            current = *older;
        }
        current
    }

    /// The instance that `id` has turned out to be, if anything was ever asked of it.
    pub(crate) fn known(&self, id: InstanceId) -> Option<Arc<Instance>> {
        let id = self.current(id);
        self.by_id.read().get(&id).cloned()
    }

    /// The instance, without asking the config database while it is known to be ours.
    pub(crate) async fn at_hand(&self, id: InstanceId) -> Result<Arc<Instance>, PoolerError> {
        match self.known(id).filter(|instance| instance.is_ours()) {
            Some(instance) => Ok(instance),
            None => self.own(self.current(id)).await,
        }
    }

    fn get_or_add(&self, id: InstanceId) -> Arc<Instance> {
        if let Some(instance) = self.by_id.read().get(&id) {
            return Arc::clone(instance);
        }
        Arc::clone(self.by_id.write().entry(id).or_insert_with(|| {
            let (pressure, clock) = (Arc::clone(&self.pressure), Arc::clone(&self.clock));
            Arc::new(Instance::new(id, pressure, clock))
        }))
    }

    /// False where there is no such instance any more.
    async fn claim(&self, instance: &Instance) -> Result<bool, PoolerError> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err(PoolerError::Moved { owner: None });
        }
        let sent = self.clock.uptime();
        let claimant = Claimant {
            pooler_id: self.me.pooler,
            incarnation: self.me.incarnation,
            lease: self.me.lease,
            patience: self.patience(),
        };
        match self.store.instance_owners().claim(instance.id, claimant).await {
            Ok(Claim::Owned {
                ownership,
                predecessor,
            }) => {
                if let Some(predecessor) = predecessor {
                    tracing::warn!(instance.id = %instance.id, predecessor.pooler = %predecessor.pooler_id,
                        "took over an instance whose owner did not give it back");
                }
                let left = self.left_on(instance.id).await?;
                // What they were during an earlier term of ours they need not be any more.
                instance.forerunners.lock().retain(|_, known| known.is_gone());
                instance.count_left(&left);
                instance.turn(|standing| standing.claimed(ownership.term, sent, self.me.lease));
                // It may have begun to leave meanwhile.
                if self.leaving.load(Ordering::Relaxed) {
                    instance.turn(Ownership::leaving);
                    return Err(PoolerError::Moved { owner: None });
                }
                if !left.is_empty() {
                    self.inherited.notify_one();
                }
                Ok(true)
            }
            Ok(Claim::Held(ownership)) => {
                // We may have believed it to be ours.
                instance.superseded(ownership.term);
                Err(PoolerError::Moved {
                    owner: Some(ownership.pooler_id),
                })
            }
            Ok(Claim::Withheld { .. }) => Err(PoolerError::ConfigDatabase),
            Err(ClaimError::InstanceNotFound) => Ok(false),
            Err(ClaimError::Store(error)) => Err(store_error(error)),
        }
    }

    /// How long another's lease must have been over before the instance is taken over.
    fn patience(&self) -> Option<Duration> {
        let (now, health) = (self.clock.uptime(), *self.health.lock());
        match health {
            // Others may have begun at the same time, after an outage of everything.
            Health::New { since } if now.saturating_sub(since) < self.me.lease => Some(self.me.lease),
            Health::New { .. } => Some(Duration::ZERO),
            Health::Failing => None,
            // Who could not renew for the same reason is given the time to do it.
            Health::Back { since } if now.saturating_sub(since) < self.me.lease => None,
            Health::Back { .. } => Some(Duration::ZERO),
        }
    }

    /// There is nobody else, by arrangement.
    pub(crate) fn is_alone(&self) {
        *self.health.lock() = Health::New {
            since: Duration::ZERO,
        };
    }

    /// Notes whether a heartbeat reached the config database.
    pub(crate) fn beat(&self, arrived: bool) {
        let mut health = self.health.lock();
        *health = match (*health, arrived) {
            (_, false) => Health::Failing,
            (Health::Failing, true) => Health::Back {
                since: self.clock.uptime(),
            },
            (other, true) => other,
        };
    }

    /// What other poolers left on an instance.
    pub(crate) async fn left_on(&self, id: InstanceId) -> Result<Vec<Left>, PoolerError> {
        let left = self.store.succession().forerunners(id, self.me.incarnation).await;
        left.map_err(store_error)
    }

    /// Renews what is ours and takes over changed budgets. Returns what turned out to be somebody else's.
    pub(crate) async fn renew(&self) -> Result<Vec<Arc<Instance>>, StoreError> {
        self.learn_merges().await?;
        let sent = self.clock.uptime();
        let lease = self.me.lease;
        let ours = self
            .store
            .instance_owners()
            .renew_all(self.me.incarnation, self.me.lease)
            .await?;
        let ours: HashMap<_, _> = ours
            .into_iter()
            .map(|ownership| (ownership.instance_id, ownership))
            .collect();
        let mut lost = Vec::new();
        for instance in self.all() {
            let was = instance.standing();
            let is = instance.turn(|ownership| match ours.get(&instance.id) {
                Some(renewed) => ownership.renewed(renewed.term, sent, lease),
                None => ownership.refused(sent, lease),
            });
            let is_lost = matches!(is, Ownership::Superseded { .. }) && was != Standing::Superseded;
            // One that was merged into another is not lost.
            if is_lost && self.current(instance.id) == instance.id {
                lost.push(instance);
            }
        }
        // These and no others, whatever becomes of them while the config database is asked.
        let known: HashMap<_, _> = self.all().into_iter().map(|known| (known.id, known)).collect();
        let ids: Vec<_> = known.keys().copied().collect();
        for row in self.store.instances().get_all(&ids).await? {
            if let Some(instance) = known.get(&row.id) {
                instance.configure(&row);
            }
        }
        // Sessions that were opened on what is now another instance have its limits.
        for younger in self.all() {
            if let Some(older) = self.known(younger.id).filter(|older| older.id != younger.id) {
                *younger.limits.lock() = older.limits();
            }
        }
        Ok(lost)
    }

    /// Gives everything back: others may own it while we still serve what we have, of which we open nothing more.
    pub(crate) async fn give_back(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        join_all(self.all().iter().map(|instance| self.give_one_back(instance))).await;
    }

    async fn give_one_back(&self, instance: &Instance) {
        let leaving = instance.turn(Ownership::leaving);
        let Some(term) = leaving.term_to_give_back() else {
            return;
        };
        // Whoever takes it over must be able to count all we have.
        if timeout(IN_FLIGHT, instance.nothing_in_flight()).await.is_err() {
            tracing::warn!(instance.id = %instance.id, "connections are still being opened: not given back");
            return;
        }
        let owners = self.store.instance_owners();
        match owners.release(instance.id, self.me.incarnation, term).await {
            Ok(_) => {
                instance.turn(Ownership::given_back);
            }
            Err(error) => {
                tracing::warn!(instance.id = %instance.id, %error, "an instance could not be given back");
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        self.by_id.read().values().cloned().collect()
    }
}

fn budget(row: &store::instances::Instance) -> Budget {
    let count = |limit| u32::try_from(row.limits.get(limit)).unwrap_or(u32::MAX);
    Budget {
        connections: row.budget.max_connections.into(),
        reserved: row.budget.reserved_connections.into(),
        most_pinned: count(Limit::MaxPinnedConnections),
        pool_size: count(Limit::PoolSize),
        most_waiting: row.limits.count(Limit::MaxWaiting),
    }
}
