//! What a login knows of the provider it was begun at: with what, and when, the provider is asked again.
//!
//! Invariant: of several instances that would ask at once, one does. A provider that rotates its refresh tokens takes a second
//! use of one for theft.

use std::time::Duration;

use domain::id::{LoginId, UserId};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::error::StoreError;
use crate::logins::{EndReason, TokenHash, end};
use crate::revocations::{self, Subject};
use crate::vouching::deny;
use crate::{Store, seconds};

/// Longer than whoever asks a provider takes: until then it may say yes.
const LONGEST_CHECK: Duration = Duration::from_secs(20);

/// A login that was begun at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSession {
    /// The login.
    pub login_id: LoginId,
    /// Whose it is.
    pub user_id: UserId,
    /// The provider.
    pub provider: String,
    /// Its issuer.
    pub issuer: String,
    /// Who the user is there.
    pub subject: String,
    /// The provider's refresh token, encrypted; none where it gave none.
    pub provider_token: Option<Vec<u8>>,
}

/// Whether the provider is to be asked about a login now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderCheck {
    /// It is, by whoever got this answer. Nobody else does for a while.
    Due(ProviderSession),
    /// It is not, or the login was not begun at a provider.
    NotDue,
    /// It is, and has vouched for nobody for longer than it may.
    Overdue(ProviderSession),
    /// It was asked a moment ago, has not answered, and has vouched for nobody for longer than it may.
    Silent,
}

/// How a login stands with the provider it was begun at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderStanding {
    /// The provider has vouched for it lately.
    Good,
    /// The provider is to be asked.
    Due,
    /// The provider was asked a moment ago, has not answered, and has vouched for nobody for longer than it may.
    Silent,
    /// There is nothing to ask with, and the login is as old as such a one may become.
    TooOld,
}

/// A login that was begun at a provider, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingLogin {
    /// The login.
    pub login_id: LoginId,
    /// The provider.
    pub provider: String,
    /// How it stands with that provider.
    pub standing: ProviderStanding,
}

/// What logins know of their providers. Made by [`Store::provider_sessions`].
#[derive(Debug, Clone, Copy)]
pub struct ProviderSessions<'a> {
    store: &'a Store,
}

impl Store {
    /// What logins know of their providers.
    #[must_use]
    pub fn provider_sessions(&self) -> ProviderSessions<'_> {
        ProviderSessions { store: self }
    }
}

type Row = (Uuid, Uuid, String, String, String, Option<Vec<u8>>, bool);

fn session((login, user, provider, issuer, subject, provider_token, _): Row) -> ProviderSession {
    ProviderSession {
        login_id: LoginId::from_uuid(login),
        user_id: UserId::from_uuid(user),
        provider,
        issuer,
        subject,
        provider_token,
    }
}

impl ProviderSessions<'_> {
    /// Takes the turn to ask the provider about the login with this unused refresh token: where it has a token to ask with, and
    /// was not asked within `interval`. `grace` is how long the provider may have said nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_check(
        &self,
        refresh_token: &TokenHash,
        interval: Duration,
        grace: Duration,
    ) -> Result<ProviderCheck, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<Row> = sqlx::query_as(
            "UPDATE pgmoor.logins AS l SET provider_check_time = clock_timestamp() FROM pgmoor.refresh_tokens AS t \
             WHERE t.hash = $1 AND t.login_id = l.id AND t.use_time IS NULL \
             AND t.expire_time > clock_timestamp() AND l.end_time IS NULL AND l.provider_token IS NOT NULL \
             AND l.provider_check_time + make_interval(secs => $2) <= clock_timestamp() \
             RETURNING l.id, l.user_id, l.provider, l.issuer, l.subject, l.provider_token, \
             l.provider_confirm_time + make_interval(secs => $3) <= clock_timestamp()",
        )
        .bind(refresh_token.as_slice())
        .bind(seconds(interval))
        .bind(seconds(grace))
        .fetch_optional(&mut *connection)
        .await?;
        match row {
            Some(row) if row.6 => return Ok(ProviderCheck::Overdue(session(row))),
            Some(row) => return Ok(ProviderCheck::Due(session(row))),
            None => {}
        }
        // Asked a moment ago, without an answer: whoever tries again must not be let through for that.
        let silent: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pgmoor.logins AS l JOIN pgmoor.refresh_tokens AS t ON t.login_id = l.id \
             WHERE t.hash = $1 AND t.use_time IS NULL AND l.end_time IS NULL AND l.provider_token IS NOT NULL \
             AND l.provider_check_time > l.provider_confirm_time \
             AND l.provider_confirm_time + make_interval(secs => $2) <= clock_timestamp())",
        )
        .bind(refresh_token.as_slice())
        .bind(seconds(grace))
        .fetch_one(&mut *connection)
        .await?;
        Ok(if silent {
            ProviderCheck::Silent
        } else {
            ProviderCheck::NotDue
        })
    }

    /// The same for a login, whatever became of its refresh tokens.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_check_of(
        &self,
        login: LoginId,
        interval: Duration,
        grace: Duration,
    ) -> Result<ProviderCheck, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<Row> = sqlx::query_as(
            "UPDATE pgmoor.logins SET provider_check_time = clock_timestamp() \
             WHERE id = $1 AND end_time IS NULL AND provider_token IS NOT NULL \
             AND provider_check_time + make_interval(secs => $2) <= clock_timestamp() \
             RETURNING id, user_id, provider, issuer, subject, provider_token, \
             provider_confirm_time + make_interval(secs => $3) <= clock_timestamp()",
        )
        .bind(login.as_uuid())
        .bind(seconds(interval))
        .bind(seconds(grace))
        .fetch_optional(&mut *connection)
        .await?;
        Ok(match row {
            Some(row) if row.6 => ProviderCheck::Overdue(session(row)),
            Some(row) => ProviderCheck::Due(session(row)),
            None => ProviderCheck::NotDue,
        })
    }

    /// How these logins stand, those that have ended or were not begun at a provider left out. `interval` and `grace` are those of
    /// [`ProviderSessions::take_check`], `age` is how old a login may become that there is nothing to ask with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standings(
        &self,
        logins: &[LoginId],
        interval: Duration,
        grace: Duration,
        age: Duration,
    ) -> Result<Vec<StandingLogin>, StoreError> {
        let ids: Vec<Uuid> = logins.iter().map(|login| login.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, String, bool, bool, bool, bool)> = sqlx::query_as(
            "SELECT id, provider, provider_token IS NOT NULL, \
             coalesce(provider_check_time + make_interval(secs => $2) <= clock_timestamp(), false), \
             coalesce(provider_check_time > provider_confirm_time \
                      AND provider_check_time + make_interval(secs => $5) <= clock_timestamp() \
                      AND provider_confirm_time + make_interval(secs => $3) <= clock_timestamp(), false), \
             create_time + make_interval(secs => $4) <= clock_timestamp() \
             FROM pgmoor.logins WHERE id = ANY ($1) AND end_time IS NULL AND provider IS NOT NULL",
        )
        .bind(ids)
        .bind(seconds(interval))
        .bind(seconds(grace))
        .bind(seconds(age))
        .bind(seconds(LONGEST_CHECK))
        .fetch_all(&mut *connection)
        .await?;
        let standing = |(id, provider, has_token, due, silent, old)| {
            let standing = match () {
                () if has_token && due => ProviderStanding::Due,
                () if has_token && silent => ProviderStanding::Silent,
                () if !has_token && old => ProviderStanding::TooOld,
                () => ProviderStanding::Good,
            };
            StandingLogin {
                login_id: LoginId::from_uuid(id),
                provider,
                standing,
            }
        };
        Ok(rows.into_iter().map(standing).collect())
    }

    /// The login with this unused refresh token, where it was begun at a provider `after` ago or earlier, and there is nothing to
    /// ask that provider with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn too_old(
        &self,
        refresh_token: &TokenHash,
        after: Duration,
    ) -> Result<Option<LoginId>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let login: Option<Uuid> = sqlx::query_scalar(
            "SELECT l.id FROM pgmoor.logins AS l JOIN pgmoor.refresh_tokens AS t ON t.login_id = l.id \
             WHERE t.hash = $1 AND t.use_time IS NULL AND l.end_time IS NULL AND l.provider IS NOT NULL \
             AND l.provider_token IS NULL AND l.create_time + make_interval(secs => $2) <= clock_timestamp()",
        )
        .bind(refresh_token.as_slice())
        .bind(seconds(after))
        .fetch_optional(&mut *connection)
        .await?;
        Ok(login.map(LoginId::from_uuid))
    }

    /// Keeps what the provider is asked with next, as soon as it gave it: what went before may be of no use any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_token(&self, login: LoginId, provider_token: &[u8]) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query("UPDATE pgmoor.logins SET provider_token = $2 WHERE id = $1 AND end_time IS NULL")
            .bind(login.as_uuid())
            .bind(provider_token)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Writes down that the provider said all is well, and with what it is asked next.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn confirm(&self, login: LoginId, provider_token: Option<Vec<u8>>) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "UPDATE pgmoor.logins SET provider_confirm_time = clock_timestamp(), \
             provider_token = coalesce($2, provider_token) WHERE id = $1 AND end_time IS NULL",
        )
        .bind(login.as_uuid())
        .bind(provider_token)
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    /// Lets the provider be asked again at once: it did not answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask_again(
        &self,
        login: LoginId,
        interval: Duration,
        pause: Duration,
    ) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "UPDATE pgmoor.logins SET provider_check_time = clock_timestamp() - make_interval(secs => $2) \
             WHERE id = $1 AND end_time IS NULL",
        )
        .bind(login.as_uuid())
        .bind(seconds(interval.saturating_sub(pause)))
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    /// Ends a login because its provider did. True where it had not ended before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(&self, login: LoginId) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let ended = end_by_provider(&mut tx, login).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// The same where the provider does not vouch for the user any more either: their API tokens stop with it. True where they
    /// did. With `confirmed_within` they do not where it has vouched for another open login of theirs within that time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_and_deny(
        &self,
        session: &ProviderSession,
        confirmed_within: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let is_vouched = match confirmed_within {
            Some(age) => has_confirmed_another(&mut tx, session, age).await?,
            None => false,
        };
        // The user before the login, as where a user is disabled.
        let denied = if is_vouched {
            None
        } else {
            deny(&mut tx, &session.issuer, &session.subject).await?
        };
        end_by_provider(&mut tx, session.login_id).await?;
        tx.commit().await?;
        Ok(denied.is_some())
    }

    /// What a login knows of its provider; none where it was not begun at one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, login: LoginId) -> Result<Option<ProviderSession>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, user_id, provider, issuer, subject, provider_token, false FROM pgmoor.logins \
             WHERE id = $1 AND provider IS NOT NULL",
        )
        .bind(login.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(session))
    }
}

async fn end_by_provider(tx: &mut PgConnection, login: LoginId) -> Result<bool, sqlx::Error> {
    let ended = end(&mut *tx, login, EndReason::Provider).await?;
    if ended {
        revocations::append(tx, &[Subject::Login(login)]).await?;
    }
    Ok(ended)
}

/// Whether the provider has vouched for another open login of the same identity lately.
async fn has_confirmed_another(
    tx: &mut PgConnection,
    session: &ProviderSession,
    age: Duration,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pgmoor.logins WHERE user_id = $1 AND issuer = $2 AND subject = $3 AND id <> $4 \
         AND end_time IS NULL AND provider_confirm_time > clock_timestamp() - make_interval(secs => $5))",
    )
    .bind(session.user_id.as_uuid())
    .bind(&session.issuer)
    .bind(&session.subject)
    .bind(session.login_id.as_uuid())
    .bind(seconds(age))
    .fetch_one(tx)
    .await
}
