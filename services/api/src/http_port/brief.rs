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
    pub(super) async fn get(&self, now: Instant, ask: impl Future<Output = T>) -> T {
        let mut kept = self.0.lock().await;
        if let Some((since, answer)) = kept.as_ref()
            && now.saturating_duration_since(*since) < GOOD_FOR
        {
            return answer.clone();
        }
        let answer = ask.await;
        *kept = Some((now, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_question() {
        let (brief, asked) = (Brief::default(), AtomicUsize::new(0));
        let ask = |now| {
            brief.get(now, async {
                tokio::task::yield_now().await;
                asked.fetch_add(1, Ordering::Relaxed)
            })
        };
        let begun = Instant::now();
        let answers = join_all((0..100).map(|_| ask(begun))).await;
        assert!(answers.iter().all(|answer| *answer == 0));
        assert_eq!(ask(begun + GOOD_FOR / 2).await, 0);
        assert_eq!(ask(begun + GOOD_FOR).await, 1);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
