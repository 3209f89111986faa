//! Whether a server can be reached: after a failure nobody tries for a while, and everybody is told why at once.
//!
//! A state machine without IO. While a server is down one attempt at a time is let through, after pauses that grow; the
//! first that succeeds opens the way for all.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::TargetError;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// PgBouncer's `server_login_retry`.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How a server was found last.
#[derive(Debug, Default)]
pub(crate) enum Reach {
    /// Nothing is known against it.
    #[default]
    Open,
    /// It could not be reached.
    Down {
        cause: TargetError,
        failures: u32,
        /// Before that nobody tries again.
        until: Instant,
    },
}

impl Reach {
    /// Says whether somebody may hope to get through: before a wait that would be for nothing.
    pub(crate) fn hope(&self, now: Instant) -> Result<(), TargetError> {
        match self {
            Self::Down { cause, until, .. } if now < *until => Err(cause.clone()),
            Self::Open | Self::Down { .. } => Ok(()),
        }
    }

    /// Says whether to try. Whoever is let through to a server that is down has `patience` to tell how it went; until then
    /// the others are refused.
    pub(crate) fn attempt(&mut self, now: Instant, patience: Duration) -> Result<(), TargetError> {
        match self {
            Self::Open => Ok(()),
            Self::Down { until, .. } if *until <= now => {
                *until = now + patience;
                Ok(())
            }
            Self::Down { cause, .. } => Err(cause.clone()),
        }
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::Open;
    }

    /// An attempt failed. `random` spreads the next ones, so that poolers do not come all at once.
    pub(crate) fn failed(&mut self, now: Instant, cause: TargetError, random: u64) {
        if !cause.is_of_the_server() {
            // It answered: what it refuses it refuses this user, database or connection.
            self.succeeded();
            return;
        }
        let failures = match self {
            Self::Open => 1,
            Self::Down { failures, .. } => failures.saturating_add(1),
        };
        let pause = FIRST_PAUSE * 2_u32.saturating_pow((failures - 1).min(10));
        let pause = pause.min(LONGEST_PAUSE);
        // Between four fifths of it and all of it.
        let spread = pause / 5;
        let pause = pause - spread + spread.mul_f64((random % 1000) as f64 / 1000.0);
        let until = now + pause;
        *self = Self::Down {
            cause,
            failures,
            until,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unreachable() -> TargetError {
        TargetError::Unreachable {
            reason: "nobody answers".to_owned(),
        }
    }

    #[test]
    fn one_attempt_at_a_time_is_let_through_to_a_server_that_is_down() {
        let (mut reach, now, patience) = (Reach::default(), Instant::now(), Duration::from_secs(10));
        reach.attempt(now, patience).unwrap();
        reach.failed(now, unreachable(), 999);
        assert!(reach.attempt(now, patience).is_err());
        let later = now + FIRST_PAUSE;
        reach.attempt(later, patience).unwrap();
        assert!(reach.attempt(later, patience).is_err());
        reach.succeeded();
        reach.attempt(later, patience).unwrap();
        reach.attempt(later, patience).unwrap();
    }

    #[test]
    fn refusal_of_one_user_is_nobody_elses() {
        let (mut reach, now) = (Reach::default(), Instant::now());
        let refused = TargetError::Authentication {
            reason: "wrong password".to_owned(),
        };
        reach.failed(now, refused, 0);
        reach.attempt(now, Duration::ZERO).unwrap();
    }

    proptest! {
        #[test]
        fn pauses_grow_and_end(randoms in prop::collection::vec(any::<u64>(), 1..40)) {
            let (mut reach, mut now) = (Reach::default(), Instant::now());
            let mut before = Duration::ZERO;
            for random in randoms {
                reach.failed(now, unreachable(), random);
                let Reach::Down { until, .. } = &reach else { panic!("it is down") };
                let pause = *until - now;
                prop_assert!(pause <= LONGEST_PAUSE && pause >= FIRST_PAUSE * 4 / 5);
                prop_assert!(pause >= before.mul_f64(0.79).min(LONGEST_PAUSE * 4 / 5));
                before = pause;
                now = *until;
                prop_assert!(reach.attempt(now, Duration::ZERO).is_ok());
            }
        }
    }
}
