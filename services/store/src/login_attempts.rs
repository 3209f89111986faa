//! Logins at a provider that are under way: begun by a client, ended by a browser on any instance, collected by the client.
//!
//! Invariant: an attempt is claimed once, whoever sends its state how often, and its outcome is collected once. What is needed
//! to go on with one is not in its row: the state, the client's verifier and the key of what is sealed are elsewhere.

mod confirmation;

use std::time::Duration;

use domain::id::{LoginAttemptId, UserId};
use domain::source_address;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::confirmation::DecidedLoginAttempt;
use crate::error::{StoreError, store_variant};
use crate::{Store, seconds};

/// Most attempts under way at once, of everybody together.
const MAX_UNDER_WAY: i64 = 10_000;
/// After so many wrong verifiers an attempt is over.
const MAX_WRONG_VERIFIERS: i32 = 10;

/// SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// An attempt to begin.
#[derive(Debug, Clone)]
pub struct NewLoginAttempt {
    /// The id.
    pub id: LoginAttemptId,
    /// The provider.
    pub provider: String,
    /// The hash of the state; none for a login on another device.
    pub state_hash: Option<SecretHash>,
    /// What the collector's verifier must hash to.
    pub code_challenge: String,
    /// Shown on both ends, to be compared.
    pub confirmation_code: String,
    /// Where the browser goes at the end.
    pub redirect_uri: Option<String>,
    /// What goes on needs, encrypted.
    pub sealed: Vec<u8>,
    /// How long it may take.
    pub lifetime: Duration,
    /// How long to wait between two questions, for a login on another device.
    pub poll_interval: Option<Duration>,
    /// With what it is begun, as the client says.
    pub client_name: Option<String>,
    /// From where.
    pub address: Option<String>,
}

/// Why an attempt was not begun.
#[derive(Debug, Error)]
pub enum CreateLoginAttemptError {
    /// There are too many already.
    #[error("too many logins are under way")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(CreateLoginAttemptError);

/// An attempt whose browser came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedLoginAttempt {
    /// The id.
    pub id: LoginAttemptId,
    /// The provider.
    pub provider: String,
    /// What the collector's verifier must hash to.
    pub code_challenge: String,
    /// Shown on both ends, to be compared.
    pub confirmation_code: String,
    /// Where the browser goes at the end.
    pub redirect_uri: Option<String>,
    /// What goes on needs, encrypted.
    pub sealed: Vec<u8>,
    /// With what it was begun, as the client says.
    pub client_name: Option<String>,
    /// From where.
    pub address: Option<String>,
}

/// How an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAttempt {
    /// The provider.
    pub provider: String,
    /// What the collector's verifier must hash to.
    pub code_challenge: String,
    /// The hash of what the browser carried to the collector; none where it carries nothing.
    pub redirect_code_hash: Option<SecretHash>,
    /// Whether the browser goes back to the collector at the end.
    pub has_redirect: bool,
    /// Whether it is a login on another device.
    pub is_device: bool,
    /// What goes on needs, encrypted.
    pub sealed: Vec<u8>,
    /// Whether it came to a user.
    pub completed: bool,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What an attempt came to.
#[derive(Debug, Clone)]
pub struct LoginOutcome {
    /// Who logged in.
    pub user_id: UserId,
    /// At whose.
    pub issuer: String,
    /// As whom.
    pub subject: String,
    /// The provider's refresh token, encrypted.
    pub provider_token: Option<Vec<u8>>,
    /// The hash of what the browser carries to the collector.
    pub redirect_code_hash: Option<SecretHash>,
}

/// What was collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedLogin {
    /// Who logged in.
    pub user_id: UserId,
    /// Where.
    pub provider: String,
    /// At whose.
    pub issuer: String,
    /// As whom.
    pub subject: String,
    /// The provider's refresh token, encrypted.
    pub provider_token: Option<Vec<u8>>,
}

/// The attempts. Made by [`Store::login_attempts`].
#[derive(Debug, Clone, Copy)]
pub struct LoginAttempts<'a> {
    store: &'a Store,
}

impl Store {
    /// Logins at a provider that are under way.
    #[must_use]
    pub fn login_attempts(&self) -> LoginAttempts<'_> {
        LoginAttempts { store: self }
    }
}

impl LoginAttempts<'_> {
    /// Begins an attempt and says when it expires. Forgets some that have expired, and one of the network with most of them where
    /// there are as many as there may be: whoever begins too many loses their own.
    ///
    /// # Errors
    /// [`CreateLoginAttemptError::TooMany`].
    pub async fn create(&self, new: NewLoginAttempt) -> Result<OffsetDateTime, CreateLoginAttemptError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        sqlx::query(
            "DELETE FROM pgmoor.login_attempts WHERE id IN (SELECT id FROM pgmoor.login_attempts \
             WHERE expire_time < clock_timestamp() LIMIT 100 FOR UPDATE SKIP LOCKED)",
        )
        .execute(&mut *tx)
        .await?;
        let under_way: i64 = sqlx::query_scalar("SELECT count(*) FROM pgmoor.login_attempts")
            .fetch_one(&mut *tx)
            .await?;
        if under_way >= MAX_UNDER_WAY && !make_room(&mut tx).await? {
            return Err(CreateLoginAttemptError::TooMany);
        }
        let expires = sqlx::query_scalar(
            "INSERT INTO pgmoor.login_attempts (id, provider, state_hash, code_challenge, confirmation_code, \
             redirect_uri, sealed, expire_time, poll_interval, next_poll_time, client_name, address, network) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8), \
             make_interval(secs => $9), clock_timestamp() + make_interval(secs => $9), $10, $11, $12) \
             RETURNING expire_time",
        )
        .bind(new.id.as_uuid())
        .bind(new.provider)
        .bind(new.state_hash.as_ref().map(<[u8; 32]>::as_slice))
        .bind(new.code_challenge)
        .bind(new.confirmation_code)
        .bind(new.redirect_uri)
        .bind(new.sealed)
        .bind(seconds(new.lifetime))
        .bind(new.poll_interval.map(seconds))
        .bind(new.client_name)
        .bind(&new.address)
        .bind(new.address.as_deref().map(source_address::network))
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(expires)
    }

    /// Forgets attempts that expired longer than `age` ago, and with them what their providers gave. Beginning another one forgets
    /// some too, but maybe nobody does. Returns how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "DELETE FROM pgmoor.login_attempts \
                   WHERE expire_time < clock_timestamp() - make_interval(secs => $1)";
        let done = sqlx::query(sql)
            .bind(seconds(age))
            .execute(&mut *connection)
            .await?;
        Ok(done.rows_affected())
    }

    /// Takes the attempt with this state, if there is one of this provider that nobody took before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(
        &self,
        provider: &str,
        state_hash: &SecretHash,
    ) -> Result<Option<ClaimedLoginAttempt>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<ClaimedRow> = sqlx::query_as(
            "UPDATE pgmoor.login_attempts SET claim_time = clock_timestamp() \
             WHERE state_hash = $1 AND provider = $2 AND claim_time IS NULL AND expire_time > clock_timestamp() \
             AND failure IS NULL \
             RETURNING id, provider, code_challenge, confirmation_code, redirect_uri, sealed, client_name, address",
        )
        .bind(state_hash.as_slice())
        .bind(provider)
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(|row| ClaimedLoginAttempt {
            id: LoginAttemptId::from_uuid(row.id),
            provider: row.provider,
            code_challenge: row.code_challenge,
            confirmation_code: row.confirmation_code,
            redirect_uri: row.redirect_uri,
            sealed: row.sealed,
            client_name: row.client_name,
            address: row.address,
        }))
    }

    /// Writes down that an attempt came to a user. False where it is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn complete(&self, id: LoginAttemptId, outcome: LoginOutcome) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.login_attempts SET user_id = $2, issuer = $3, subject = $4, provider_token = $5, \
             redirect_code_hash = $6, sealed = '' WHERE id = $1 AND user_id IS NULL AND failure IS NULL \
             AND expire_time > clock_timestamp()",
        )
        .bind(id.as_uuid())
        .bind(outcome.user_id.as_uuid())
        .bind(outcome.issuer)
        .bind(outcome.subject)
        .bind(outcome.provider_token)
        .bind(outcome.redirect_code_hash.as_ref().map(<[u8; 32]>::as_slice))
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes down why an attempt failed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fail(&self, id: LoginAttemptId, failure: &str) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "UPDATE pgmoor.login_attempts SET failure = $2, sealed = '' \
             WHERE id = $1 AND user_id IS NULL AND failure IS NULL",
        )
        .bind(id.as_uuid())
        .bind(failure)
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    /// How an attempt stands. None where there is no such attempt, or it is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: LoginAttemptId) -> Result<Option<LoginAttempt>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<AttemptRow> = sqlx::query_as(
            "SELECT provider, code_challenge, redirect_code_hash, redirect_uri IS NOT NULL AS has_redirect, \
             state_hash IS NULL AS is_device, sealed, user_id IS NOT NULL AS completed, failure \
             FROM pgmoor.login_attempts WHERE id = $1 AND expire_time > clock_timestamp() \
             AND wrong_verifiers < $2",
        )
        .bind(id.as_uuid())
        .bind(MAX_WRONG_VERIFIERS)
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(|row| LoginAttempt {
            provider: row.provider,
            code_challenge: row.code_challenge,
            redirect_code_hash: row.redirect_code_hash.and_then(|hash| hash.try_into().ok()),
            has_redirect: row.has_redirect,
            is_device: row.is_device,
            sealed: row.sealed,
            completed: row.completed,
            failure: row.failure,
        }))
    }

    /// Counts a wrong verifier: after ten the attempt is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_wrong_verifier(&self, id: LoginAttemptId) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.login_attempts SET wrong_verifiers = wrong_verifiers + 1 WHERE id = $1";
        sqlx::query(sql)
            .bind(id.as_uuid())
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Takes the turn to ask the provider about a login on another device. False where it is too early, or somebody else's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_poll(&self, id: LoginAttemptId) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.login_attempts SET next_poll_time = clock_timestamp() + poll_interval \
             WHERE id = $1 AND next_poll_time <= clock_timestamp() AND user_id IS NULL AND failure IS NULL",
        )
        .bind(id.as_uuid())
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Asks less often, as the provider wishes (RFC 8628, 3.5).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn slow_down(&self, id: LoginAttemptId) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "UPDATE pgmoor.login_attempts SET poll_interval = poll_interval + interval '5 seconds', \
             next_poll_time = clock_timestamp() + poll_interval + interval '5 seconds' WHERE id = $1",
        )
        .bind(id.as_uuid())
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    /// Collects what an attempt came to, once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn collect(&self, id: LoginAttemptId) -> Result<Option<CollectedLogin>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<CollectedRow> = sqlx::query_as(
            "DELETE FROM pgmoor.login_attempts WHERE id = $1 AND user_id IS NOT NULL \
             AND issuer IS NOT NULL AND subject IS NOT NULL AND expire_time > clock_timestamp() \
             RETURNING user_id, provider, issuer, subject, provider_token",
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(
            |(user_id, provider, issuer, subject, provider_token)| CollectedLogin {
                user_id: UserId::from_uuid(user_id),
                provider,
                issuer,
                subject,
                provider_token,
            },
        ))
    }
}

/// Ends the oldest attempt of the network with most of them, one that no browser came back to if there is one. False where somebody
/// else is at it.
async fn make_room(tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM pgmoor.login_attempts WHERE id = (SELECT id FROM pgmoor.login_attempts \
         WHERE network IS NOT DISTINCT FROM (SELECT network FROM pgmoor.login_attempts GROUP BY network \
                                             ORDER BY count(*) DESC LIMIT 1) \
         ORDER BY claim_time IS NOT NULL, create_time LIMIT 1 FOR UPDATE SKIP LOCKED)",
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    id: Uuid,
    provider: String,
    code_challenge: String,
    confirmation_code: String,
    redirect_uri: Option<String>,
    sealed: Vec<u8>,
    client_name: Option<String>,
    address: Option<String>,
}

/// User, provider, issuer, subject, the provider's token.
type CollectedRow = (Uuid, String, String, String, Option<Vec<u8>>);

#[derive(sqlx::FromRow)]
struct AttemptRow {
    provider: String,
    code_challenge: String,
    redirect_code_hash: Option<Vec<u8>>,
    has_redirect: bool,
    is_device: bool,
    sealed: Vec<u8>,
    completed: bool,
    failure: Option<String>,
}
