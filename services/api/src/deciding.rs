//! Questions about what goes on, put to the config database: a few at a time, and hardly any while it does not answer.
//!
//! Invariant: while it answers, each question has its turn; while it answers nobody, nobody waits for a turn, and one question
//! in a second finds out when it answers again.

use std::time::Duration;

use parking_lot::Mutex;
use store::StoreError;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::error::Error;

/// Questions at a time.
const TURNS: usize = 4;
/// How long an answer is waited for: less than a stream goes on for without having been found good.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where another question was answered so lately, one that was not says nothing about the database. Longer than the time between
/// two questions about what was revoked, and shorter than [`PATIENCE`].
const LATELY: Duration = Duration::from_millis(1500);
/// Time between two questions while nobody is answered.
const PAUSE: Duration = Duration::from_secs(1);

/// Whose turn it is to ask, and whether anybody is answered.
#[derive(Debug)]
pub(crate) struct Deciding {
    turns: Semaphore,
    silent: watch::Sender<bool>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    answered: Instant,
    /// When it was asked last whether the silence is over.
    probed: Instant,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was answered.
    Given(Result<(), Error>),
    /// Others are answered, and this one was not.
    Missing,
    /// Nobody is answered.
    Silence,
}

impl Deciding {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            turns: Semaphore::new(TURNS),
            silent: watch::Sender::new(false),
            last: Mutex::new(Last {
                answered: now,
                probed: now,
            }),
        }
    }

    /// Whether nobody was answered lately.
    pub(crate) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// Asks when it is the question's turn. While nobody is answered it is not asked, unless it is the one that finds out.
    /// `heard_at` is when the database answered somebody else last, who asks all the time.
    pub(crate) async fn ask(
        &self,
        heard_at: impl Fn() -> Instant,
        question: impl Future<Output = Result<(), Error>>,
    ) -> Answer {
        let mut silent = self.silent.subscribe();
        let _turn = if self.is_silent() {
            if !self.probes() {
                return Answer::Silence;
            }
            None
        } else {
            // Who has the turn has it for no longer than PATIENCE, or the silence begins.
            tokio::select! {
                biased;
                _ = silent.wait_for(|silent| *silent) => return Answer::Silence,
                turn = self.turns.acquire() => turn.ok(),
            }
        };
        match timeout(PATIENCE, question).await {
            Ok(Err(error)) if is_silence(&error) => self.unanswered(heard_at()),
            Err(_) => self.unanswered(heard_at()),
            Ok(answer) => {
                self.answered();
                Answer::Given(answer)
            }
        }
    }

    fn probes(&self) -> bool {
        let mut last = self.last.lock();
        let is_due = last.probed.elapsed() >= PAUSE;
        if is_due {
            last.probed = Instant::now();
        }
        is_due
    }

    fn answered(&self) {
        self.last.lock().answered = Instant::now();
        if self
            .silent
            .send_if_modified(|silent| std::mem::replace(silent, false))
        {
            tracing::info!("the config database answers again: what goes on is decided upon");
        }
    }

    fn unanswered(&self, heard_at: Instant) -> Answer {
        let mut last = self.last.lock();
        if last.answered.max(heard_at).elapsed() < LATELY {
            return Answer::Missing;
        }
        if self
            .silent
            .send_if_modified(|silent| !std::mem::replace(silent, true))
        {
            last.probed = Instant::now();
            tracing::warn!("the config database does not answer: what goes on is not decided upon");
        }
        Answer::Silence
    }
}

/// Whether nobody could be asked.
fn is_silence(error: &Error) -> bool {
    match error {
        Error::Status(status) => status.code() == Code::Unavailable,
        Error::Store(error) => matches!(error, StoreError::Unavailable(_) | StoreError::TimedOut(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use auth::AuthError;
    use domain::access::Permission;
    use futures::future::join_all;

    use super::*;

    /// However slow this machine is, it was not lately.
    fn long_ago() -> Instant {
        Instant::now() - LATELY * 2
    }

    async fn fall_silent(deciding: &Deciding) {
        deciding.last.lock().answered = long_ago();
        let unavailable = async { Err(Error::from(AuthError::Unavailable)) };
        assert!(matches!(
            deciding.ask(long_ago, unavailable).await,
            Answer::Silence
        ));
        assert!(deciding.is_silent());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_turn_once_nobody_is_answered() {
        let deciding = Deciding::new();
        let asked = join_all((0..500).map(|_| deciding.ask(long_ago, pending())));
        // One after the other it would be 125 times as long.
        let answers = timeout(PATIENCE * 10, asked).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Silence)));
    }

    #[tokio::test]
    async fn first_answer_ends_the_silence() {
        let deciding = Deciding::new();
        fall_silent(&deciding).await;
        let again = harness::eventually(PAUSE * 30, "a question is put", async || {
            match deciding.ask(long_ago, ready(Ok(()))).await {
                Answer::Given(answer) => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        });
        again.await.unwrap();
        assert!(!deciding.is_silent());
        assert!(matches!(
            deciding.ask(long_ago, ready(Ok(()))).await,
            Answer::Given(Ok(()))
        ));
    }

    #[tokio::test]
    async fn refusal_is_an_answer() {
        let deciding = Deciding::new();
        deciding.last.lock().answered = long_ago();
        let permission = Permission::SessionsUse;
        let refusal = async { Err(Error::from(AuthError::PermissionMissing { permission })) };
        assert!(matches!(
            deciding.ask(long_ago, refusal).await,
            Answer::Given(Err(_))
        ));
        assert!(!deciding.is_silent());
    }

    #[tokio::test]
    async fn question_that_finds_no_answer_while_others_do_says_nothing_about_the_database() {
        let deciding = Deciding::new();
        // However slow this machine is, it was lately.
        deciding.last.lock().answered = Instant::now() + PATIENCE * 30;
        let unavailable = async { Err(Error::from(AuthError::Unavailable)) };
        assert!(matches!(
            deciding.ask(long_ago, unavailable).await,
            Answer::Missing
        ));
        assert!(!deciding.is_silent());
    }

    #[tokio::test]
    async fn question_that_finds_no_answer_while_revocations_are_heard_says_nothing_about_the_database() {
        let deciding = Deciding::new();
        deciding.last.lock().answered = long_ago();
        let just_now = || Instant::now() + PATIENCE * 30;
        let unavailable = async { Err(Error::from(AuthError::Unavailable)) };
        assert!(matches!(
            deciding.ask(just_now, unavailable).await,
            Answer::Missing
        ));
        assert!(!deciding.is_silent());
    }
}
