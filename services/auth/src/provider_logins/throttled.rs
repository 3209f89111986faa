//! What this instance knows to be over its limit: it need not be counted in the config database any more, where every count of an
//! address writes the same row.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::recent::Recent;

/// Most keys that are known at once. One that is forgotten is counted again.
const CAPACITY: usize = 10_000;

/// Keys over their limit, and until when.
#[derive(Debug)]
pub(super) struct Throttled(Mutex<Recent<String, Instant>>);

impl Default for Throttled {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(CAPACITY)))
    }
}

impl Throttled {
    /// How long the key is over its limit still.
    pub(super) fn left(&self, key: &str) -> Option<Duration> {
        let mut keys = self.0.lock();
        let key = key.to_owned();
        let left = keys.get(&key)?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            keys.remove(&key);
            return None;
        }
        Some(left)
    }

    /// The key is over its limit for so long.
    pub(super) fn keep(&self, key: String, retry_after: Duration) {
        self.0.lock().insert(key, Instant::now() + retry_after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_over_its_limit_until_the_time_is_over() {
        let throttled = Throttled::default();
        assert_eq!(throttled.left("a"), None);
        let minute = Duration::from_secs(60);
        throttled.keep("a".to_owned(), minute);
        assert!(throttled.left("a").is_some_and(|left| left <= minute));
        assert_eq!(throttled.left("b"), None);
        throttled.keep("a".to_owned(), Duration::ZERO);
        assert_eq!(throttled.left("a"), None);
    }
}
