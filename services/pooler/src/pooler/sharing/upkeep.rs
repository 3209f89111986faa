//! What is done every second: sessions and backends whose time is over, and pools that have too few.

use std::collections::HashMap;
use std::sync::Arc;

use domain::limits::Limit;
use tokio::time::Instant;

use super::{Resting, Waiting, claim_for};
use crate::instances::Instance;
use crate::ledger::PoolNumber;
use crate::pooler::Pooler;
use crate::pooler::opening::Dialed;
use crate::session::{Keeping, Session};

impl Pooler {
    /// Ends sessions and backends whose time is over, and fills pools up. Called every second.
    pub(in crate::pooler) fn sweep(&self) {
        let mut lived_in: HashMap<PoolNumber, Arc<Session>> = HashMap::new();
        for session in self.0.registry.all() {
            if let Some(pool) = session.pool() {
                let needs = session.expire();
                self.serve(&session, needs);
                if let Some(news) = session.news() {
                    self.note(news);
                }
                lived_in.entry(pool.number).or_insert(session);
            }
        }
        for instance in self.0.instances.all() {
            self.sweep_idle(&instance, &lived_in);
        }
        for session in lived_in.into_values() {
            self.fill(&session);
        }
    }

    fn sweep_idle(&self, instance: &Arc<Instance>, lived_in: &HashMap<PoolNumber, Arc<Session>>) {
        instance.slots.lift_ceiling(Instant::now());
        let limits = instance.limits();
        let longest = limits.time_if_any(Limit::ServerIdleTimeout);
        let (least, most) = (limits.count(Limit::MinPoolSize), limits.count(Limit::PoolSize));
        let (dead, old) = {
            let mut idle = instance.idle.lock();
            // Told while nobody can look: who comes for the backend then learns that it is gone.
            let dead = idle.take(|rested| {
                let dead = !rested.backend.is_alive();
                if dead && let Some(session) = rested.session.and_then(|name| self.0.registry.get(name)) {
                    session.recover();
                }
                dead
            });
            let mut old = Vec::new();
            let spare_above = |rested: &Resting, size: usize| {
                let held = instance.slots.held_of_pool(rested.pool);
                usize::try_from(held).unwrap_or(usize::MAX) > size
            };
            // A pool somebody lives in keeps its minimum.
            let spare = |rested: &Resting, taken: usize| {
                !lived_in.contains_key(&rested.pool) || spare_above(rested, least + taken)
            };
            while let Some(rested) = idle.contest_if(|rested| {
                let rested_long = longest.is_some_and(|longest| rested.since.elapsed() >= longest);
                let too_many = most > 0 && spare_above(rested, most + old.len());
                instance.gives_up(&rested.backend) || too_many || rested_long && spare(rested, old.len())
            }) {
                old.push(rested);
            }
            (dead, old)
        };
        for rested in dead {
            self.close_later(rested.backend);
        }
        for rested in old {
            self.0
                .tasks
                .spawn(self.clone().contest(Arc::clone(instance), rested));
        }
    }

    /// Opens a backend for the pool a session lives in, if it has fewer than its minimum and nobody waits.
    fn fill(&self, session: &Arc<Session>) {
        let Keeping::Auto { home, .. } = &session.facts.keeping else {
            return;
        };
        let pool = home.pool();
        let Some(instance) = self.0.instances.known(pool.key.instance) else {
            return;
        };
        let held = usize::try_from(instance.slots.held_of_pool(pool.number)).unwrap_or(usize::MAX);
        let enough = held >= instance.limits().count(Limit::MinPoolSize);
        let paused = instance.pause_time().is_some();
        if enough || paused || !instance.is_ours() || instance.slots.wanted() > 0 || self.takes_new().is_err()
        {
            return;
        }
        let Ok(slot) = instance.slots.claim(claim_for(session, &pool)) else {
            return;
        };
        let waits = slot.position().is_some();
        let waiting = Waiting {
            instance: &instance,
            slot: Some(slot),
        };
        if waits {
            return;
        }
        let slot = match waiting.take() {
            Some(Err(slot)) => slot,
            Some(Ok(backend)) => {
                self.rest_clean(&instance, backend, session);
                return;
            }
            None => return,
        };
        let (pooler, home, session) = (self.clone(), home.clone(), Arc::clone(session));
        self.0.tasks.spawn(async move {
            let Ok(Some(config)) = pooler.connect_config(&session, &home, &pool).await else {
                return;
            };
            if instance.attempt().is_err() {
                return;
            }
            let server = (pool.key.server, pool.key.kind);
            let dialed = pooler.dial(config, slot, Arc::clone(&instance), server).await;
            match dialed {
                Ok(Dialed::Here(backend, facts)) if facts.is_pooler => backend.take().close().await,
                Ok(Dialed::Here(backend, _)) => {
                    let backend = pooler.shared(backend.take(), &pool, &instance);
                    pooler.rest_clean(&instance, backend, &session);
                }
                Ok(Dialed::Elsewhere(_)) | Err(_) => {}
            }
        });
    }

    /// Closes what rests. Called at the end, when nobody takes it any more.
    pub(in crate::pooler) fn close_idle(&self) {
        for instance in self.0.instances.all() {
            for rested in instance.idle.lock().take(|_| true) {
                self.close_later(rested.backend);
            }
        }
    }
}
