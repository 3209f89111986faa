//! Waiting for a condition, with a deadline and a failure text that says what was awaited.

use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// What one look at a condition found: its value, or the reason why it does not hold yet.
pub trait Look {
    /// The value of a condition that holds.
    type Value;

    /// The value, or what to tell the reader when this was the last look.
    ///
    /// # Errors
    /// The reason why the condition does not hold.
    fn found(self) -> Result<Self::Value, String>;
}

impl<T> Look for Option<T> {
    type Value = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "not there".to_owned())
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Value = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

impl Look for bool {
    type Value = ();

    fn found(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("does not hold".to_owned())
        }
    }
}

/// Looks again and again until the condition holds and returns its value: the `Some` of an Option, the `Ok`
/// of a Result, `()` for a `true`. A look that hangs is cut off at the deadline.
///
/// `what` completes the sentence "… did not happen: {what}", e.g. `"the watcher sees the new value"`.
///
/// # Panics
/// When the condition does not hold within `deadline`; the text has `what`, the last look's reason and the
/// caller's line.
#[track_caller]
pub fn eventually<O: Look, F: AsyncFnMut() -> O>(
    deadline: Duration,
    what: &str,
    look: F,
) -> impl Future<Output = O::Value> {
    let caller = Location::caller();
    poll(deadline, what, look, caller)
}

async fn poll<O: Look, F: AsyncFnMut() -> O>(
    deadline: Duration,
    what: &str,
    mut look: F,
    caller: &Location<'_>,
) -> O::Value {
    let end = Instant::now() + deadline;
    let mut last = "no look finished".to_owned();
    while let Ok(seen) = timeout_at(end, look()).await {
        match seen.found() {
            Ok(value) => return value,
            Err(reason) => last = reason,
        }
        if Instant::now() >= end {
            break;
        }
        sleep(INTERVAL).await;
    }
    panic!("within {deadline:?} this did not happen: {what} (last look: {last}; awaited at {caller})");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_to_hold_yields_its_value() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(5), "the third look", async || {
            looks += 1;
            (looks == 3).then_some(looks)
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "the impossible (last look: still closed")]
    async fn a_condition_that_never_holds_fails_with_the_last_reason() {
        eventually(Duration::from_millis(60), "the impossible", async || {
            Err::<(), _>("still closed")
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "no look finished")]
    async fn a_look_that_hangs_is_cut_off_at_the_deadline() {
        eventually(Duration::from_millis(60), "a hang", async || {
            std::future::pending::<()>().await;
            true
        })
        .await;
    }
}
