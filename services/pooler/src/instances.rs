//! The instances this pooler has to do with: the slots of each, what is known of it, and whether it is ours.
//!
//! Ownership: an instance is claimed in the config database before the first connection and renewed by heartbeats. What
//! counts is our own clock, from the moment a claim was *sent*: by it the lease ends here before it ends there. Once it
//! has lapsed, nothing is opened until it is renewed; what is open stays open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::{IncarnationId, InstanceId};
use domain::limits::{Limit, Limits};
use domain::session::{PoolerId, SessionName};
use parking_lot::{Mutex, RwLock};
use store::instance_owners::{Claim, ClaimError, Claimant, Ownership};
use store::instances::Facts;
use store::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::error::{PoolerError, TargetError};
use crate::idle::Idle;
use crate::ledger::{Budget, Ticket};
use crate::reach::Reach;
use crate::slots::Slots;
use crate::status::store_error;

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
    /// Whether its server can be reached.
    pub(crate) reach: Mutex<Reach>,
    limits: Mutex<Limits>,
    held: Mutex<Option<Held>>,
    known: Mutex<Option<Facts>>,
    /// Claims of one instance go one after the other.
    claiming: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    term: u64,
    until: Instant,
}

impl Instance {
    fn new(id: InstanceId, pressure: Arc<Notify>) -> Self {
        Self {
            id,
            slots: Slots::new(Budget::DEFAULT, pressure),
            idle: Mutex::new(Idle::new()),
            deliveries: Mutex::default(),
            settled: Notify::new(),
            reach: Mutex::default(),
            limits: Mutex::default(),
            held: Mutex::default(),
            known: Mutex::default(),
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

    /// Takes over what the config database says.
    fn configure(&self, row: &store::instances::Instance) {
        *self.limits.lock() = row.limits;
        self.slots.set_budget(budget(row));
        self.slots
            .set_reserve_after(row.limits.time_if_any(Limit::ReservePoolTimeout));
    }

    /// True where its lease has not run out.
    pub(crate) fn is_ours(&self) -> bool {
        self.held.lock().is_some_and(|held| Instant::now() < held.until)
    }

    /// True where these facts are not yet in the config database.
    pub(crate) fn is_news(&self, facts: &Facts) -> bool {
        self.known.lock().as_ref() != Some(facts)
    }

    pub(crate) fn note(&self, facts: Facts) {
        *self.known.lock() = Some(facts);
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Instances {
    store: Store,
    me: SelfId,
    by_id: RwLock<HashMap<InstanceId, Arc<Instance>>>,
    /// Instances that turned out to be another.
    merged: RwLock<HashMap<InstanceId, InstanceId>>,
    /// Rung when an instance's connections are wanted elsewhere: see [`Slots`].
    pub(crate) pressure: Arc<Notify>,
}

impl Instances {
    pub(crate) fn new(store: Store, me: SelfId) -> Self {
        Self {
            store,
            me,
            by_id: RwLock::default(),
            merged: RwLock::default(),
            pressure: Arc::default(),
        }
    }

    /// The instance, once it is ours, with its budget as it stands in the config database.
    pub(crate) async fn own(&self, id: InstanceId) -> Result<Arc<Instance>, PoolerError> {
        let row = self.store.instances().get(id).await.map_err(store_error)?;
        let row = row.ok_or_else(|| PoolerError::NotFound {
            resource: format!("instances/{id}"),
        })?;
        let instance = self.get_or_add(id);
        if !instance.is_ours() {
            let _claiming = instance.claiming.lock().await;
            if !instance.is_ours() {
                self.claim(&instance).await?;
            }
        }
        instance.configure(&row);
        Ok(instance)
    }

    /// Counts the connections of `younger` under `older` from now on: they are one.
    pub(crate) fn merge(&self, older: InstanceId, younger: InstanceId) {
        let younger = self.by_id.read().get(&younger).cloned();
        if let Some(younger) = younger.filter(|younger| younger.id != older) {
            self.get_or_add(older).slots.absorb(&younger.slots);
            self.merged.write().insert(younger.id, older);
            // Its idle backends are wanted back.
            self.pressure.notify_one();
        }
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
        Arc::clone(
            self.by_id
                .write()
                .entry(id)
                .or_insert_with(|| Arc::new(Instance::new(id, Arc::clone(&self.pressure)))),
        )
    }

    async fn claim(&self, instance: &Instance) -> Result<(), PoolerError> {
        let sent = Instant::now();
        let claimant = Claimant {
            pooler_id: self.me.pooler,
            incarnation: self.me.incarnation,
            lease: self.me.lease,
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
                *instance.held.lock() = Some(self.held(&ownership, sent));
                Ok(())
            }
            Ok(Claim::Held(ownership)) => Err(PoolerError::Moved {
                owner: ownership.pooler_id,
            }),
            Ok(Claim::Withheld { .. }) => Err(PoolerError::ConfigDatabase),
            Err(ClaimError::InstanceNotFound) => Err(PoolerError::NotFound {
                resource: format!("instances/{}", instance.id),
            }),
            Err(ClaimError::Store(error)) => Err(store_error(error)),
        }
    }

    fn held(&self, ownership: &Ownership, sent: Instant) -> Held {
        Held {
            term: ownership.term,
            until: sent + self.me.lease,
        }
    }

    /// Renews what is ours and takes over changed budgets.
    pub(crate) async fn renew(&self) -> Result<(), StoreError> {
        let sent = Instant::now();
        let ours = self
            .store
            .instance_owners()
            .renew_all(self.me.incarnation, self.me.lease)
            .await?;
        let ours: HashMap<_, _> = ours
            .into_iter()
            .map(|ownership| (ownership.instance_id, ownership))
            .collect();
        for instance in self.all() {
            let mut held = instance.held.lock();
            match (ours.get(&instance.id), *held) {
                (Some(ownership), _) => *held = Some(self.held(ownership, sent)),
                // A claim that was made meanwhile is not in the answer, and was not superseded either.
                (None, Some(old)) if old.until <= sent + self.me.lease => *held = None,
                (None, _) => {}
            }
        }
        for instance in self.all() {
            if let Some(row) = self.store.instances().get(instance.id).await? {
                instance.configure(&row);
            }
        }
        // Sessions that were opened on what is now another instance have its limits.
        for younger in self.all() {
            if let Some(older) = self.known(younger.id).filter(|older| older.id != younger.id) {
                *younger.limits.lock() = older.limits();
            }
        }
        Ok(())
    }

    /// Gives back what has no connection any more. Called when everything is closed.
    pub(crate) async fn release(&self) {
        for instance in self.all() {
            let held = instance.held.lock().take();
            let Some(held) = held.filter(|_| instance.slots.usage().total() == 0) else {
                continue;
            };
            let released = self
                .store
                .instance_owners()
                .release(instance.id, self.me.incarnation, held.term)
                .await;
            if let Err(error) = released {
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
