//! An answer that is good for a moment: of many who ask at once, one asks the config database.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer is good, a failure too.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The answer, if there is a fresh one.
#[derive(Debug)]
pub(crate) struct Brief<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Brief<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Brief<T> {
    /// The answer of a moment ago, or one that is asked for now. Others wait for it.
    pub(super) async fn get(&self, ask: impl Future<Output = T>) -> T {
        self.get_at(Instant::now, ask).await
    }

    async fn get_at(&self, now: impl Fn() -> Instant, ask: impl Future<Output = T>) -> T {
        let mut kept = self.0.lock().await;
        // Once it is our turn: we may have waited for the answer that is there.
        if let Some((since, answer)) = kept.as_ref()
            && now().saturating_duration_since(*since) < GOOD_FOR
        {
            return answer.clone();
        }
        let answer = ask.await;
        // From when it came: one that took long is as good for those who waited for it.
        *kept = Some((now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use parking_lot::Mutex;

    use super::{Brief, Duration, GOOD_FOR, Instant};

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_question_however_long_it_takes() {
        let (brief, asked, clock) = (Brief::default(), AtomicUsize::new(0), Mutex::new(Instant::now()));
        let now = || *clock.lock();
        let pass = |time: Duration| *clock.lock() += time;
        let ask = || {
            brief.get_at(now, async {
                tokio::task::yield_now().await;
                pass(GOOD_FOR * 5);
                asked.fetch_add(1, Ordering::Relaxed)
            })
        };
        let answers = join_all((0..100).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| *answer == 0));
        pass(GOOD_FOR / 2);
        assert_eq!(ask().await, 0);
        pass(GOOD_FOR / 2);
        assert_eq!(ask().await, 1);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
