//! The same figures for whoever collects them: numbers by instance and database, without a name of anybody.

use std::collections::BTreeMap;

use domain::id::InstanceId;
use rpc::pool::v1 as proto;

use super::Viewer;
use crate::inspection::InspectionFigures;
use crate::ledger::{Budget, Usage};
use crate::pooler::Pooler;
use crate::tally::Totals;

/// Labels of one kind at most: names of databases are their owners' to choose.
const MOST: usize = 1000;

/// An instance's id and a database. An empty one stands for all beyond [`MOST`].
pub(crate) type Place = (String, String);

/// What a pooler counts at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Pools by instance and database.
    pub(crate) pools: BTreeMap<Place, PoolFigures>,
    /// What was done, by instance and database.
    pub(crate) stats: BTreeMap<Place, StatFigures>,
    /// Budgets by instance.
    pub(crate) budgets: BTreeMap<String, BudgetFigures>,
    /// Open sessions.
    pub(crate) sessions: usize,
    /// Scripts without a session.
    pub(crate) scripts: usize,
    /// Instances it owns.
    pub(crate) instances: usize,
    /// True while it takes nothing new.
    pub(crate) draining: bool,
    /// What looks at roles came to.
    pub(crate) inspections: InspectionFigures,
}

/// The columns of SHOW POOLS, summed up over servers and roles.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolFigures {
    /// The numbers by the names they have in `pgmoor.pool.v1.Pool`, without those of waits.
    pub(crate) counts: BTreeMap<&'static str, i64>,
    /// How long the first of those who wait has waited, in seconds.
    pub(crate) longest_wait: f64,
}

impl PoolFigures {
    /// A column of `pgmoor.pool.v1.Pool`.
    pub(crate) fn count(&self, column: &str) -> f64 {
        self.counts.get(column).map_or(0.0, |count| *count as f64)
    }
}

/// The totals of SHOW STATS. Times in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StatFigures {
    /// Times a client was given a backend.
    pub(crate) assignments: u64,
    /// Transactions.
    pub(crate) transactions: u64,
    /// Messages.
    pub(crate) queries: u64,
    /// Bytes passed on to PostgreSQL.
    pub(crate) received: u64,
    /// Bytes that PostgreSQL answered.
    pub(crate) sent: u64,
    /// Time in transactions.
    pub(crate) transaction_time: u64,
    /// Time in which PostgreSQL was at work.
    pub(crate) query_time: u64,
    /// Time that clients waited.
    pub(crate) wait_time: u64,
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
pub(crate) struct BudgetFigures {
    /// What there is.
    pub(crate) budget: Budget,
    /// What is given out.
    pub(crate) usage: Usage,
    /// Connections of other poolers that count.
    pub(crate) elsewhere: u32,
    /// Claims that wait.
    pub(crate) waiting: usize,
    /// True while it is paused.
    pub(crate) paused: bool,
}

impl Pooler {
    /// What it counts, over all users.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures {
            sessions: self.session_count(),
            scripts: self.0.scripts.len(),
            instances: self.0.instances.all().iter().filter(|one| one.is_ours()).count(),
            draining: self.takes_new().is_err(),
            inspections: self.0.inspections.counts.figures(),
            ..Figures::default()
        };
        for pool in self.show_pools(Viewer::Everything) {
            let key = (id(&pool.instance), pool.database.clone());
            let summed = at(&mut figures.pools, key);
            for (name, number) in counts(&pool) {
                *summed.counts.entry(name).or_default() += i64::from(number);
            }
            let wait = pool.maxwait as f64 + f64::from(pool.maxwait_us) / 1e6;
            summed.longest_wait = summed.longest_wait.max(wait);
        }
        for (key, tally) in self.0.tallies.all() {
            let instance: InstanceId = self.0.instances.current(key.instance);
            let key = (instance.to_string(), key.database);
            at(&mut figures.stats, key).add(tally.totals());
        }
        for instance in self.kept() {
            let budget = BudgetFigures {
                budget: instance.slots.budget(),
                usage: instance.slots.usage(),
                elsewhere: instance.slots.elsewhere(),
                waiting: instance.slots.waiting(),
                paused: instance.pause_time().is_some(),
            };
            figures.budgets.insert(instance.id.to_string(), budget);
        }
        figures
    }
}

/// The figures of a place, or those of all that are too many.
fn at<F: Default>(figures: &mut BTreeMap<Place, F>, mut place: Place) -> &mut F {
    if figures.len() >= MOST && !figures.contains_key(&place) {
        place.1.clear();
    }
    figures.entry(place).or_default()
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
