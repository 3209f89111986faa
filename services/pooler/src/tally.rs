//! What was done in the databases of servers: counted as it happens, averaged over the last whole period.
//!
//! Counting takes a few additions for each statement, and nothing for a row. The words are PgBouncer's (SHOW STATS).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::id::{InstanceId, ServerId, UserId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What averages are taken over. PgBouncer's `stats_period`.
const PERIOD: Duration = Duration::from_secs(60);
/// Databases that are counted at most; above that the ones nobody is connected to are forgotten.
const MOST: usize = 10_000;

/// Which database of which server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TallyKey {
    pub(crate) instance: InstanceId,
    pub(crate) server: ServerId,
    pub(crate) owner: UserId,
    pub(crate) database: String,
}

/// Sums from some moment on. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) assignments: u64,
    pub(crate) transactions: u64,
    pub(crate) queries: u64,
    /// Bytes passed on to the server.
    pub(crate) received: u64,
    /// Bytes the server answered.
    pub(crate) sent: u64,
    pub(crate) transaction_time: u64,
    pub(crate) query_time: u64,
    pub(crate) wait_time: u64,
}

/// What happened in a period: counts and bytes for each second, times for each of what they are times of.
pub(crate) type Averages = Totals;

#[derive(Debug, Default)]
struct Period {
    /// The sums when it began and when it ended.
    older: Totals,
    newer: Totals,
    length: Duration,
}

/// One database's counters.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    assignments: AtomicU64,
    transactions: AtomicU64,
    queries: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    transaction_time: AtomicU64,
    query_time: AtomicU64,
    wait_time: AtomicU64,
    period: Mutex<Period>,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    /// A client was given a backend after this wait.
    pub(crate) fn assigned(&self, waited: Duration) {
        add(&self.assignments, 1);
        add(&self.wait_time, micros(waited));
    }

    /// The server answered a message.
    pub(crate) fn answered(&self, took: Duration) {
        add(&self.queries, 1);
        add(&self.query_time, micros(took));
    }

    /// A transaction ended.
    pub(crate) fn transaction_ended(&self, lasted: Duration) {
        add(&self.transactions, 1);
        add(&self.transaction_time, micros(lasted));
    }

    /// So much was passed on to the server, and answered by it.
    pub(crate) fn passed(&self, received: u64, sent: u64) {
        add(&self.received, received);
        add(&self.sent, sent);
    }

    /// The sums since the pooler started.
    pub(crate) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            assignments: read(&self.assignments),
            transactions: read(&self.transactions),
            queries: read(&self.queries),
            received: read(&self.received),
            sent: read(&self.sent),
            transaction_time: read(&self.transaction_time),
            query_time: read(&self.query_time),
            wait_time: read(&self.wait_time),
        }
    }

    /// The averages of the last whole period.
    pub(crate) fn averages(&self) -> Averages {
        let period = self.period.lock();
        averages(&period.older, &period.newer, period.length)
    }

    /// Ends a period.
    fn turn(&self, length: Duration) {
        let totals = self.totals();
        let mut period = self.period.lock();
        period.older = std::mem::replace(&mut period.newer, totals);
        period.length = length;
    }
}

fn averages(older: &Totals, newer: &Totals, length: Duration) -> Averages {
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let rate = |older: u64, newer: u64| {
        let more = newer.saturating_sub(older);
        more.saturating_mul(1000).checked_div(millis).unwrap_or_default()
    };
    let each = |older: u64, newer: u64, count: u64| {
        newer.saturating_sub(older).checked_div(count).unwrap_or_default()
    };
    let transactions = newer.transactions.saturating_sub(older.transactions);
    let queries = newer.queries.saturating_sub(older.queries);
    let assignments = newer.assignments.saturating_sub(older.assignments);
    Averages {
        assignments: rate(older.assignments, newer.assignments),
        transactions: rate(older.transactions, newer.transactions),
        queries: rate(older.queries, newer.queries),
        received: rate(older.received, newer.received),
        sent: rate(older.sent, newer.sent),
        transaction_time: each(older.transaction_time, newer.transaction_time, transactions),
        query_time: each(older.query_time, newer.query_time, queries),
        wait_time: each(older.wait_time, newer.wait_time, assignments),
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Tallies(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    by_key: HashMap<TallyKey, Arc<Tally>>,
    turned: Instant,
}

impl Tallies {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Counted {
            by_key: HashMap::new(),
            turned: Instant::now(),
        }))
    }

    /// The counters of a database.
    pub(crate) fn get(&self, key: TallyKey) -> Arc<Tally> {
        let mut counted = self.0.lock();
        if counted.by_key.len() >= MOST && !counted.by_key.contains_key(&key) {
            counted.by_key.retain(|_, tally| Arc::strong_count(tally) > 1);
        }
        Arc::clone(counted.by_key.entry(key).or_default())
    }

    /// Ends the period if it is over. Called every second.
    pub(crate) fn turn(&self, now: Instant) {
        let mut counted = self.0.lock();
        let length = now.saturating_duration_since(counted.turned);
        if length < PERIOD {
            return;
        }
        counted.turned = now;
        // Databases nobody got into, a wrong name for example, are of no interest.
        counted
            .by_key
            .retain(|_, tally| Arc::strong_count(tally) > 1 || tally.totals() != Totals::default());
        for tally in counted.by_key.values() {
            tally.turn(length);
        }
    }

    /// All counters.
    pub(crate) fn all(&self) -> Vec<(TallyKey, Arc<Tally>)> {
        let counted = self.0.lock();
        let all = counted.by_key.iter();
        all.map(|(key, tally)| (key.clone(), Arc::clone(tally))).collect()
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;

    #[tokio::test]
    async fn averages_are_those_of_the_last_whole_period() {
        let random = SeededRandom::new(1);
        let tallies = Tallies::new();
        let tally = tallies.get(TallyKey {
            instance: InstanceId::generate(&random),
            server: ServerId::generate(&random),
            owner: UserId::generate(&random),
            database: "sales".to_owned(),
        });
        let start = Instant::now();
        for _ in 0..120 {
            tally.answered(Duration::from_millis(3));
        }
        tally.passed(6000, 600);
        tallies.turn(start + PERIOD / 2);
        assert_eq!(tally.averages(), Averages::default());
        tallies.turn(start + PERIOD);
        let averages = tally.averages();
        assert_eq!((averages.queries, averages.query_time), (2, 3000));
        assert!((95..=100).contains(&averages.received), "{averages:?}");
        // Nothing happened since.
        tallies.turn(start + 3 * PERIOD);
        assert_eq!(tally.averages(), Averages::default());
        assert_eq!(tally.totals().queries, 120);
    }
}
