//! The same figures for whoever collects them: numbers by instance and database, without a name of anybody.

use std::collections::BTreeMap;

use domain::id::InstanceId;
use rpc::pool::v1 as proto;

use super::Viewer;
use crate::ledger::{Budget, Usage};
use crate::pooler::Pooler;
use crate::tally::Totals;

/// What a pooler counts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Pools by instance and database.
    pub pools: BTreeMap<(String, String), PoolFigures>,
    /// What was done, by instance and database.
    pub stats: BTreeMap<(String, String), StatFigures>,
    /// Budgets by instance.
    pub budgets: BTreeMap<String, BudgetFigures>,
    /// Open sessions.
    pub sessions: usize,
    /// Scripts without a session.
    pub scripts: usize,
    /// Instances it owns.
    pub instances: usize,
    /// True while it takes nothing new.
    pub draining: bool,
}

/// The columns of SHOW POOLS, summed up over servers and roles.
#[derive(Debug, Clone, Default)]
pub struct PoolFigures {
    /// The numbers by the names they have in `pgmoor.pool.v1.Pool`, without those of waits.
    pub counts: BTreeMap<&'static str, i64>,
    /// How long the first of those who wait has waited, in seconds.
    pub longest_wait: f64,
}

/// The totals of SHOW STATS. Times in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatFigures {
    /// Times a client was given a backend.
    pub assignments: u64,
    /// Transactions.
    pub transactions: u64,
    /// Messages.
    pub queries: u64,
    /// Bytes passed on to PostgreSQL.
    pub received: u64,
    /// Bytes that PostgreSQL answered.
    pub sent: u64,
    /// Time in transactions.
    pub transaction_time: u64,
    /// Time in which PostgreSQL was at work.
    pub query_time: u64,
    /// Time that clients waited.
    pub wait_time: u64,
}

impl StatFigures {
    fn add(&mut self, totals: Totals) {
        self.assignments += totals.assignments;
        self.transactions += totals.transactions;
        self.queries += totals.queries;
        self.received += totals.received;
        self.sent += totals.sent;
        self.transaction_time += totals.transaction_time;
        self.query_time += totals.query_time;
        self.wait_time += totals.wait_time;
    }
}

/// An instance's budget.
#[derive(Debug, Clone, Copy)]
pub struct BudgetFigures {
    /// What there is.
    pub budget: Budget,
    /// What is given out.
    pub usage: Usage,
    /// Claims that wait.
    pub waiting: usize,
    /// True while it is paused.
    pub paused: bool,
}

impl Pooler {
    /// What it counts, over all users.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            sessions: self.session_count(),
            scripts: self.0.scripts.len(),
            instances: self.0.instances.all().iter().filter(|one| one.is_ours()).count(),
            draining: self.takes_new().is_err(),
            ..Figures::default()
        };
        for pool in self.show_pools(Viewer::Everything) {
            let key = (id(&pool.instance), pool.database.clone());
            let summed = figures.pools.entry(key).or_default();
            for (name, number) in counts(&pool) {
                *summed.counts.entry(name).or_default() += i64::from(number);
            }
            let wait = pool.maxwait as f64 + f64::from(pool.maxwait_us) / 1e6;
            summed.longest_wait = summed.longest_wait.max(wait);
        }
        for (key, tally) in self.0.tallies.all() {
            let instance: InstanceId = self.0.instances.current(key.instance);
            let key = (instance.to_string(), key.database);
            figures.stats.entry(key).or_default().add(tally.totals());
        }
        for instance in self.kept() {
            let budget = BudgetFigures {
                budget: instance.slots.budget(),
                usage: instance.slots.usage(),
                waiting: instance.slots.waiting(),
                paused: instance.pause_time().is_some(),
            };
            figures.budgets.insert(instance.id.to_string(), budget);
        }
        figures
    }
}

fn id(name: &str) -> String {
    name.strip_prefix("instances/").unwrap_or(name).to_owned()
}

fn counts(pool: &proto::Pool) -> [(&'static str, i32); 11] {
    [
        ("cl_active", pool.cl_active),
        ("cl_waiting", pool.cl_waiting),
        ("sv_active", pool.sv_active),
        ("sv_being_canceled", pool.sv_being_canceled),
        ("sv_idle", pool.sv_idle),
        ("sv_used", pool.sv_used),
        ("sv_tested", pool.sv_tested),
        ("sv_login", pool.sv_login),
        ("sv_pinned", pool.sv_pinned),
        ("sv_pinned_idle", pool.sv_pinned_idle),
        ("sv_closing", pool.sv_closing),
    ]
}
