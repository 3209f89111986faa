//! Logins and their refresh tokens, which work once.
//!
//! Invariant: a login has one refresh token that was not used. Using another one of its tokens means that two
//! parties have them, and ends the login (RFC 9700, 4.14.2). There is no grace for a client that sends the
//! same token twice.

use std::time::Duration;

use domain::id::{LoginId, UserId};
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{StoreError, store_variant};
use crate::etag::Etag;
use crate::revocations::{self, Subject};
use crate::users::{User, UserRow};
use crate::{Store, seconds};

/// SHA-256 of a token. Tokens themselves are not stored.
pub type TokenHash = [u8; 32];

/// A login to begin.
#[derive(Debug, Clone)]
pub struct NewLogin {
    /// The id.
    pub id: LoginId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's etag as read with what the login was checked against: fails the login if the password
    /// changed since.
    pub user_etag: Option<Etag>,
    /// The first refresh token's hash.
    pub refresh_token_hash: TokenHash,
    /// How long the refresh token works if it is not used.
    pub refresh_token_lifetime: Duration,
    /// With what, from where and at whose it is begun.
    pub origin: LoginOrigin,
}

/// With what, from where and at whose a login is begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginOrigin {
    /// The client, as it says itself.
    pub client_name: Option<String>,
    /// Where it called from.
    pub address: Option<String>,
    /// The provider somebody logged in at; none for a password.
    pub provider: Option<ProviderOrigin>,
}

/// The provider somebody logged in at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderOrigin {
    /// The provider.
    pub provider: String,
    /// Its issuer.
    pub issuer: String,
    /// Who they are there.
    pub subject: String,
    /// The provider's refresh token, encrypted; none where it gave none.
    pub provider_token: Option<Vec<u8>>,
}

/// A login that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The id.
    pub id: LoginId,
    /// Whose it is.
    pub user: User,
    /// The provider it was begun with; none for a password.
    pub provider: Option<String>,
    /// When its refresh token stops working if it is not used.
    pub refresh_token_expire_time: OffsetDateTime,
}

/// What became of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// It was replaced by the new one.
    Rotated(Login),
    /// No login has it.
    Unknown,
    /// It was not used in time.
    Expired,
    /// Its login has ended, or its user is disabled.
    Revoked,
    /// It was used before. Its login has ended now.
    Reused {
        /// The login.
        login_id: LoginId,
        /// Whose it was.
        user_id: UserId,
    },
}

/// Why a login was not begun.
#[derive(Debug, Error)]
pub enum StartLoginError {
    /// There is no such user.
    #[error("there is no such user")]
    UserNotFound,
    /// The user may not log in.
    #[error("the user is disabled")]
    UserDisabled,
    /// The user changed since the etag was read.
    #[error("the user changed since the etag was read")]
    EtagMismatch,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(StartLoginError);

/// Why a login ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EndReason {
    Logout,
    Reuse,
    Password,
    Disabled,
    Revoked,
    Provider,
}

impl EndReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reuse => "reuse",
            Self::Password => "password",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Provider => "provider",
        }
    }
}

/// The logins. Made by [`Store::logins`].
#[derive(Debug, Clone, Copy)]
pub struct Logins<'a> {
    store: &'a Store,
}

impl Store {
    /// The logins.
    #[must_use]
    pub fn logins(&self) -> Logins<'_> {
        Logins { store: self }
    }
}

impl Logins<'_> {
    /// Begins a login with its first refresh token.
    ///
    /// # Errors
    /// [`StartLoginError`] by cause.
    pub async fn start(&self, new: NewLogin) -> Result<Login, StartLoginError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        // The lock lets no change of the user pass between this look and the commit.
        let row: Option<UserRow> = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time \
             FROM pgmoor.users WHERE id = $1 FOR SHARE",
        )
        .bind(new.user_id.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
        let user = User::try_from(row.ok_or(StartLoginError::UserNotFound)?)?;
        if user.disabled {
            return Err(StartLoginError::UserDisabled);
        }
        if new.user_etag.is_some_and(|etag| etag != user.etag) {
            return Err(StartLoginError::EtagMismatch);
        }
        let origin = &new.origin;
        let provider = origin.provider.as_ref();
        sqlx::query(
            "INSERT INTO pgmoor.logins (id, user_id, client_name, address, provider, issuer, subject, \
             provider_token, provider_check_time, provider_confirm_time) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp(), clock_timestamp())",
        )
        .bind(new.id.as_uuid())
        .bind(user.id.as_uuid())
        .bind(&origin.client_name)
        .bind(&origin.address)
        .bind(provider.map(|it| &it.provider))
        .bind(provider.map(|it| &it.issuer))
        .bind(provider.map(|it| &it.subject))
        .bind(provider.and_then(|it| it.provider_token.as_deref()))
        .execute(&mut *tx)
        .await?;
        let refresh_token_expire_time = insert_token(
            &mut tx,
            new.id,
            &new.refresh_token_hash,
            new.refresh_token_lifetime,
        )
        .await?;
        tx.commit().await?;
        Ok(Login {
            id: new.id,
            user,
            provider: new.origin.provider.map(|it| it.provider),
            refresh_token_expire_time,
        })
    }

    /// Exchanges a refresh token for a new one. All outcomes but [`Refresh::Rotated`] leave the caller
    /// without a token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh(
        &self,
        hash: &TokenHash,
        new_hash: &TokenHash,
        lifetime: Duration,
    ) -> Result<Refresh, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        // The login is what two uses of its tokens have in common: lock it, then look at the token.
        let login: Option<(Uuid, Uuid, bool, Option<String>)> = sqlx::query_as(
            "SELECT id, user_id, end_time IS NOT NULL, provider FROM pgmoor.logins \
             WHERE id = (SELECT login_id FROM pgmoor.refresh_tokens WHERE hash = $1) FOR UPDATE",
        )
        .bind(hash.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
        let Some((login_id, user_id, ended, provider)) = login else {
            return Ok(Refresh::Unknown);
        };
        let (login_id, user_id) = (LoginId::from_uuid(login_id), UserId::from_uuid(user_id));
        if ended {
            return Ok(Refresh::Revoked);
        }
        let token: Option<(bool, bool)> = sqlx::query_as(
            "SELECT use_time IS NOT NULL, expire_time <= clock_timestamp() FROM pgmoor.refresh_tokens WHERE \
             hash = $1",
        )
        .bind(hash.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
        let Some((used, expired)) = token else {
            return Ok(Refresh::Unknown);
        };
        if used {
            end(&mut tx, login_id, EndReason::Reuse).await?;
            revocations::append(&mut tx, &[Subject::Login(login_id)]).await?;
            tx.commit().await?;
            return Ok(Refresh::Reused { login_id, user_id });
        }
        if expired {
            return Ok(Refresh::Expired);
        }
        let user: UserRow = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time \
             FROM pgmoor.users WHERE id = $1",
        )
        .bind(user_id.as_uuid())
        .fetch_one(&mut *tx)
        .await?;
        let user = User::try_from(user)?;
        if user.disabled {
            return Ok(Refresh::Revoked);
        }
        sqlx::query("UPDATE pgmoor.refresh_tokens SET use_time = clock_timestamp() WHERE hash = $1")
            .bind(hash.as_slice())
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE pgmoor.logins SET refresh_time = clock_timestamp() WHERE id = $1")
            .bind(login_id.as_uuid())
            .execute(&mut *tx)
            .await?;
        let refresh_token_expire_time = insert_token(&mut tx, login_id, new_hash, lifetime).await?;
        tx.commit().await?;
        Ok(Refresh::Rotated(Login {
            id: login_id,
            user,
            provider,
            refresh_token_expire_time,
        }))
    }

    /// Ends a login: its refresh token dies now, its access tokens as soon as the verifiers hear of it.
    /// Ending it again changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(&self, id: LoginId) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        if end(&mut tx, id, EndReason::Logout).await? {
            revocations::append(&mut tx, &[Subject::Login(id)]).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Whether somebody of this name, as it is compared, has logged in from this address or network within `age`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn knows_address(
        &self,
        username_key: &str,
        is_same: impl Fn(&str) -> bool,
        age: Duration,
    ) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let addresses: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT l.address FROM pgmoor.logins AS l JOIN pgmoor.users AS u ON u.id = l.user_id \
             WHERE u.username_key = $1 AND l.address IS NOT NULL \
             AND l.create_time > clock_timestamp() - make_interval(secs => $2) LIMIT 1000",
        )
        .bind(username_key)
        .bind(seconds(age))
        .fetch_all(&mut *connection)
        .await?;
        Ok(addresses.iter().any(|address| is_same(address)))
    }

    /// Forgets logins that ended longer than `age` ago or whose tokens all expired then. Returns how many
    /// there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "WITH horizon AS (SELECT clock_timestamp() - make_interval(secs => $1) AS time) \
             DELETE FROM pgmoor.logins AS l USING horizon AS h WHERE l.end_time < h.time \
             OR (l.end_time IS NULL AND NOT EXISTS \
                 (SELECT FROM pgmoor.refresh_tokens AS t WHERE t.login_id = l.id AND t.expire_time >= \
                 h.time))",
        )
        .bind(seconds(age))
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Ends all logins of a user and returns those that had not ended.
pub(crate) async fn end_all(
    tx: &mut PgConnection,
    user_id: UserId,
    reason: EndReason,
) -> Result<Vec<LoginId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE pgmoor.logins SET end_time = clock_timestamp(), end_reason = $2 \
         WHERE user_id = $1 AND end_time IS NULL RETURNING id",
    )
    .bind(user_id.as_uuid())
    .bind(reason.name())
    .fetch_all(tx)
    .await?;
    Ok(ids.into_iter().map(LoginId::from_uuid).collect())
}

/// Ends all logins that were begun at these providers and returns those that had not ended.
pub(crate) async fn end_of_providers(
    tx: &mut PgConnection,
    providers: &[String],
) -> Result<Vec<LoginId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE pgmoor.logins SET end_time = clock_timestamp(), end_reason = $2 \
         WHERE provider = ANY ($1) AND end_time IS NULL RETURNING id",
    )
    .bind(providers)
    .bind(EndReason::Provider.name())
    .fetch_all(tx)
    .await?;
    Ok(ids.into_iter().map(LoginId::from_uuid).collect())
}

/// True where the login had not ended.
pub(crate) async fn end(tx: &mut PgConnection, id: LoginId, reason: EndReason) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE pgmoor.logins SET end_time = clock_timestamp(), end_reason = $2 WHERE id = $1 AND end_time \
         IS NULL",
    )
    .bind(id.as_uuid())
    .bind(reason.name())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn insert_token(
    tx: &mut PgConnection,
    login_id: LoginId,
    hash: &TokenHash,
    lifetime: Duration,
) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO pgmoor.refresh_tokens (hash, login_id, expire_time) \
         VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) RETURNING expire_time",
    )
    .bind(hash.as_slice())
    .bind(login_id.as_uuid())
    .bind(seconds(lifetime))
    .fetch_one(tx)
    .await
}
