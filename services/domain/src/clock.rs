//! Where the current time comes from. Everything that needs "now" is handed a [`Clock`].

use std::fmt;
use std::sync::Mutex;

use time::{Duration, OffsetDateTime};

/// A source of wall-clock time. Deadlines inside one process use the runtime's monotonic timer instead.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The current time, in UTC.
    fn now(&self) -> OffsetDateTime;

    /// How long the machine has been running, asleep or awake: what leases are measured by. A timer of the runtime stands
    /// still while the machine is suspended, and the lease in the config database does not.
    fn uptime(&self) -> std::time::Duration;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the system clock"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn uptime(&self) -> std::time::Duration {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        since.try_into().unwrap_or_default()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    start: OffsetDateTime,
    now: Mutex<OffsetDateTime>,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: OffsetDateTime) -> Self {
        Self {
            start,
            now: Mutex::new(start),
        }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OffsetDateTime> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        *self.lock()
    }

    fn uptime(&self) -> std::time::Duration {
        (*self.lock() - self.start).try_into().unwrap_or_default()
    }
}
