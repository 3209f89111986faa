//! The limits of an instance beside its budget: how its backends are pooled, and how long anything may take.
//!
//! Where the meaning is PgBouncer's, so is the name.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Most backends of one pool, in use and at rest. 0: as many as the budget has.
    PoolSize,
    /// Backends a pool keeps while it has sessions.
    MinPoolSize,
    /// How long a session's claim waits before it may take what is reserved. 0: it never may.
    ReservePoolTimeout,
    /// Most connections PINNED sessions hold, those that AUTO sessions are pinned to counted in. 0: no limit of their own.
    MaxPinnedConnections,
    /// Most sessions of one user. 0: any number.
    MaxUserSessions,
    /// Most claims that wait at a time.
    MaxWaiting,
    /// Longest wait for a connection. What a session asks for is cut to it.
    QueryWaitTimeout,
    /// How long the server has to let us in.
    ServerConnectTimeout,
    /// How long a backend rests before it is closed. 0: for ever.
    ServerIdleTimeout,
    /// How long a backend is used before it is closed at the next rest. 0: for ever.
    ServerLifetime,
    /// Most that is taken off at random from a backend's lifetime, so that not all end at once.
    ServerLifetimeJitter,
    /// How long a backend may have rested without being asked whether it still answers.
    ServerCheckDelay,
    /// Longest a session may be idle. What a session asks for is cut to it.
    ClientIdleTimeout,
    /// Longest an AUTO session may be idle while something other than a transaction pins it. 0: as any session.
    PinnedIdleTimeout,
    /// Longest a session may be idle in a transaction. What a session asks for is cut to it.
    IdleTransactionTimeout,
    /// Longest a transaction may be open. 0: for ever.
    TransactionTimeout,
    /// Longest a statement may run. What a script asks for is cut to it. 0: for ever.
    QueryTimeout,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Milliseconds.
    Time,
}

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 17] = [
        Self::PoolSize,
        Self::MinPoolSize,
        Self::ReservePoolTimeout,
        Self::MaxPinnedConnections,
        Self::MaxUserSessions,
        Self::MaxWaiting,
        Self::QueryWaitTimeout,
        Self::ServerConnectTimeout,
        Self::ServerIdleTimeout,
        Self::ServerLifetime,
        Self::ServerLifetimeJitter,
        Self::ServerCheckDelay,
        Self::ClientIdleTimeout,
        Self::PinnedIdleTimeout,
        Self::IdleTransactionTimeout,
        Self::TransactionTimeout,
        Self::QueryTimeout,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PoolSize => "pool_size",
            Self::MinPoolSize => "min_pool_size",
            Self::ReservePoolTimeout => "reserve_pool_timeout",
            Self::MaxPinnedConnections => "max_pinned_connections",
            Self::MaxUserSessions => "max_user_sessions",
            Self::MaxWaiting => "max_waiting",
            Self::QueryWaitTimeout => "query_wait_timeout",
            Self::ServerConnectTimeout => "server_connect_timeout",
            Self::ServerIdleTimeout => "server_idle_timeout",
            Self::ServerLifetime => "server_lifetime",
            Self::ServerLifetimeJitter => "server_lifetime_jitter",
            Self::ServerCheckDelay => "server_check_delay",
            Self::ClientIdleTimeout => "client_idle_timeout",
            Self::PinnedIdleTimeout => "pinned_idle_timeout",
            Self::IdleTransactionTimeout => "idle_transaction_timeout",
            Self::TransactionTimeout => "transaction_timeout",
            Self::QueryTimeout => "query_timeout",
        }
    }

    /// The limit of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// What it counts.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::PoolSize
            | Self::MinPoolSize
            | Self::MaxPinnedConnections
            | Self::MaxUserSessions
            | Self::MaxWaiting => Unit::Count,
            _ => Unit::Time,
        }
    }

    /// What it may be.
    #[must_use]
    pub fn range(self) -> RangeInclusive<u64> {
        match self {
            Self::PoolSize | Self::MaxPinnedConnections => 0..=10_000,
            Self::MinPoolSize => 0..=1000,
            Self::MaxUserSessions => 0..=1_000_000,
            Self::MaxWaiting => 1..=100_000,
            Self::ReservePoolTimeout => 0..=HOUR,
            Self::QueryWaitTimeout => 1..=HOUR,
            Self::ServerConnectTimeout => 100..=60 * SECOND,
            Self::ServerIdleTimeout | Self::ServerLifetime | Self::ServerLifetimeJitter => 0..=30 * DAY,
            Self::ServerCheckDelay => 0..=HOUR,
            Self::ClientIdleTimeout | Self::IdleTransactionTimeout => SECOND..=DAY,
            Self::PinnedIdleTimeout | Self::TransactionTimeout | Self::QueryTimeout => 0..=DAY,
        }
    }

    /// What it is unless somebody says otherwise.
    #[must_use]
    pub fn default(self) -> u64 {
        match self {
            Self::PoolSize
            | Self::MinPoolSize
            | Self::MaxPinnedConnections
            | Self::MaxUserSessions
            | Self::PinnedIdleTimeout
            | Self::TransactionTimeout
            | Self::QueryTimeout => 0,
            Self::ReservePoolTimeout => 5 * SECOND,
            Self::MaxWaiting => 5000,
            Self::QueryWaitTimeout => 120 * SECOND,
            Self::ServerConnectTimeout => 10 * SECOND,
            Self::ServerIdleTimeout => 600 * SECOND,
            Self::ServerLifetime => HOUR,
            Self::ServerLifetimeJitter => 360 * SECOND,
            Self::ServerCheckDelay => 30 * SECOND,
            Self::ClientIdleTimeout | Self::IdleTransactionTimeout => DAY,
        }
    }

    fn place(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value that a limit cannot have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be {}", allowed(*limit))]
pub struct OutOfRange {
    /// The limit.
    pub limit: Limit,
}

fn allowed(limit: Limit) -> String {
    let (least, most) = (*limit.range().start(), *limit.range().end());
    match limit.unit() {
        Unit::Count => format!("{least} to {most}"),
        Unit::Time => format!("{} s to {} s", seconds(least), seconds(most)),
    }
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

/// The limits of an instance: what was chosen, and the defaults for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits([Option<u64>; Limit::ALL.len()]);

impl Limits {
    /// What holds.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.0[limit.place()].unwrap_or_else(|| limit.default())
    }

    /// What was chosen.
    #[must_use]
    pub fn chosen(&self, limit: Limit) -> Option<u64> {
        self.0[limit.place()]
    }

    /// Chooses, or goes back to the default.
    ///
    /// # Errors
    /// [`OutOfRange`]
    pub fn choose(&mut self, limit: Limit, value: Option<u64>) -> Result<(), OutOfRange> {
        if value.is_some_and(|value| !limit.range().contains(&value)) {
            return Err(OutOfRange { limit });
        }
        self.0[limit.place()] = value;
        Ok(())
    }

    /// A count.
    #[must_use]
    pub fn count(&self, limit: Limit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }

    /// A time.
    #[must_use]
    pub fn time(&self, limit: Limit) -> Duration {
        Duration::from_millis(self.get(limit))
    }

    /// A time, nothing where 0 means that there is no limit.
    #[must_use]
    pub fn time_if_any(&self, limit: Limit) -> Option<Duration> {
        Some(self.time(limit)).filter(|time| !time.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_allowed_and_names_found() {
        for limit in Limit::ALL {
            assert!(limit.range().contains(&limit.default()), "{limit}");
            assert_eq!(Limit::named(limit.name()), Some(limit));
            assert_eq!(Limits::default().get(limit), limit.default());
        }
        assert_eq!(Limit::named("max_client_conn"), None);
    }

    #[test]
    fn what_is_chosen_holds_until_it_is_reset() {
        let mut limits = Limits::default();
        limits.choose(Limit::PoolSize, Some(3)).unwrap();
        assert_eq!(limits.count(Limit::PoolSize), 3);
        limits.choose(Limit::PoolSize, None).unwrap();
        assert_eq!(limits, Limits::default());
        let wrong = limits.choose(Limit::ServerConnectTimeout, Some(1)).unwrap_err();
        assert_eq!(wrong.to_string(), "must be 0.1 s to 60 s");
        assert_eq!(limits.time_if_any(Limit::QueryTimeout), None);
    }
}
