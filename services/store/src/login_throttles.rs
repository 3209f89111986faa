//! How often a login was tried for a name, counted for all instances together.
//!
//! Invariant: an attempt is counted before its password is looked at, so that a hundred at once are not all
//! the first. Names of users and names of nobody are counted alike, so that the count tells nothing about who
//! exists.

use std::time::Duration;

use crate::error::StoreError;
use crate::{Store, seconds};

/// Longest key in bytes; what is beyond does not count.
const MAX_KEY_BYTES: usize = 512;

/// How many attempts are allowed in how long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottlePolicy {
    /// Attempts allowed in a window.
    pub limit: u32,
    /// How long a window lasts, from its first attempt.
    pub window: Duration,
}

/// Whether an attempt is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is.
    Allowed,
    /// There were too many.
    Throttled {
        /// When the window ends.
        retry_after: Duration,
    },
}

/// The counts of attempts. Made by [`Store::login_throttles`].
#[derive(Debug, Clone, Copy)]
pub struct LoginThrottles<'a> {
    store: &'a Store,
}

impl Store {
    /// The counts of login attempts.
    #[must_use]
    pub fn login_throttles(&self) -> LoginThrottles<'_> {
        LoginThrottles { store: self }
    }
}

impl LoginThrottles<'_> {
    /// Counts an attempt and says whether it is allowed. Call [`LoginThrottles::clear`] when it succeeds.
    ///
    /// # Errors
    /// When the database fails; then the login must not go on.
    pub async fn attempt(&self, key: &str, policy: ThrottlePolicy) -> Result<Attempt, StoreError> {
        let mut connection = self.store.acquire().await?;
        let (attempts, left): (i32, f64) = sqlx::query_as(
            "INSERT INTO pgmoor.login_throttles AS t (key, attempts, window_start_time) \
             VALUES ($1, 1, clock_timestamp()) \
             ON CONFLICT ON CONSTRAINT login_throttles_pkey DO UPDATE SET \
             attempts = CASE WHEN t.window_start_time + make_interval(secs => $2) <= clock_timestamp() THEN \
             1 \
                        ELSE least(t.attempts, 1000000) + 1 END, \
             window_start_time = CASE WHEN t.window_start_time + make_interval(secs => $2) <= \
             clock_timestamp() \
                                 THEN clock_timestamp() ELSE t.window_start_time END \
             RETURNING attempts, \
             extract(epoch FROM window_start_time + make_interval(secs => $2) - clock_timestamp())::float8",
        )
        .bind(bounded(key))
        .bind(seconds(policy.window))
        .fetch_one(&mut *connection)
        .await?;
        if i64::from(attempts) <= i64::from(policy.limit) {
            return Ok(Attempt::Allowed);
        }
        let retry_after = Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(policy.window);
        Ok(Attempt::Throttled { retry_after })
    }

    /// Forgets the attempts for a key, after one that succeeded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clear(&self, key: &str) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "DELETE FROM pgmoor.login_throttles WHERE key = $1";
        sqlx::query(sql)
            .bind(bounded(key))
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Takes one attempt back, after it succeeded: the others of the key stay counted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_back(&self, key: &str) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.login_throttles SET attempts = attempts - 1 WHERE key = $1 AND attempts > 1";
        let lowered = sqlx::query(sql)
            .bind(bounded(key))
            .execute(&mut *connection)
            .await?;
        if lowered.rows_affected() == 0 {
            let sql = "DELETE FROM pgmoor.login_throttles WHERE key = $1 AND attempts = 1";
            sqlx::query(sql)
                .bind(bounded(key))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// Forgets windows that began longer than `age` ago, which must be at least a window. Returns how many
    /// there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "DELETE FROM pgmoor.login_throttles \
                   WHERE window_start_time < clock_timestamp() - make_interval(secs => $1)";
        Ok(sqlx::query(sql)
            .bind(seconds(age))
            .execute(&mut *connection)
            .await?
            .rows_affected())
    }
}

/// Keys come from outside: bounded, and without the one character PostgreSQL's text cannot hold.
fn bounded(key: &str) -> String {
    let end = key.floor_char_boundary(MAX_KEY_BYTES);
    key.get(..end).unwrap_or_default().replace('\0', "\u{fffd}")
}
