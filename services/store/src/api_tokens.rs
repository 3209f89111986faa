//! Tokens that users make for automation.

use std::time::Duration;

use domain::id::{ApiTokenId, UserId};
use domain::name::DisplayName;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Inconsistency, StoreError, store_variant, violated_constraint};
use crate::logins::TokenHash;
use crate::page::{Cursor, Page, PageRequest};
use crate::revocations::{self, Subject};
use crate::users::{User, UserRow};
use crate::{Store, seconds};

/// A token for automation, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// The id.
    pub id: ApiTokenId,
    /// Whose it is.
    pub user_id: UserId,
    /// What the owner calls it.
    pub display_name: DisplayName,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it expires, if it does.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was revoked, if it was.
    pub revoke_time: Option<OffsetDateTime>,
    /// When it was last seen, to the minute.
    pub last_use_time: Option<OffsetDateTime>,
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    /// The id.
    pub id: ApiTokenId,
    /// Whose it is.
    pub user_id: UserId,
    /// The token's hash.
    pub hash: TokenHash,
    /// What the owner calls it.
    pub display_name: DisplayName,
    /// How long it lives; `None` until it is revoked.
    pub lifetime: Option<Duration>,
    /// When it expires at the latest, whatever its lifetime.
    pub not_after: Option<OffsetDateTime>,
}

/// What a presented token turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one per call, and nearly always the large one"
)]
pub enum FoundApiToken {
    /// A token that works, of a user who may use it.
    Valid {
        /// The token.
        token: ApiToken,
        /// Its owner.
        user: User,
    },
    /// It has expired.
    Expired,
    /// It was revoked, or its user is disabled.
    Revoked,
}

/// Why a token was not made.
#[derive(Debug, Error)]
pub enum CreateApiTokenError {
    /// There is no such user.
    #[error("there is no such user")]
    UserNotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CreateApiTokenError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("api_tokens_user_id") => Self::UserNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for CreateApiTokenError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// Why a token was not revoked.
#[derive(Debug, Error)]
pub enum RevokeApiTokenError {
    /// The user has no such token.
    #[error("the user has no such token")]
    NotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(RevokeApiTokenError);

/// The tokens for automation. Made by [`Store::api_tokens`].
#[derive(Debug, Clone, Copy)]
pub struct ApiTokens<'a> {
    store: &'a Store,
}

impl Store {
    /// The tokens for automation.
    #[must_use]
    pub fn api_tokens(&self) -> ApiTokens<'_> {
        ApiTokens { store: self }
    }
}

impl ApiTokens<'_> {
    /// Makes a token.
    ///
    /// # Errors
    /// [`CreateApiTokenError::UserNotFound`].
    pub async fn create(&self, new: NewApiToken) -> Result<ApiToken, CreateApiTokenError> {
        let mut connection = self.store.acquire().await?;
        let row: ApiTokenRow = sqlx::query_as(
            "INSERT INTO pgmoor.api_tokens (id, user_id, hash, display_name, expire_time) \
             VALUES ($1, $2, $3, $4, least(clock_timestamp() + make_interval(secs => $5), $6)) \
             RETURNING id, user_id, display_name, create_time, expire_time, revoke_time, last_use_time",
        )
        .bind(new.id.as_uuid())
        .bind(new.user_id.as_uuid())
        .bind(new.hash.as_slice())
        .bind(new.display_name.as_str())
        .bind(new.lifetime.map(seconds))
        .bind(new.not_after)
        .fetch_one(&mut *connection)
        .await?;
        Ok(row.try_into()?)
    }

    /// Lists a user's tokens that were not revoked, newest first. Expired ones are among them.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, user_id: UserId, page: &PageRequest) -> Result<Page<ApiToken>, StoreError> {
        let after = page.after.as_ref().map(Cursor::time_and_id).transpose()?;
        let (after_time, after_id) = after.unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<ApiTokenRow> = sqlx::query_as(
            "SELECT id, user_id, display_name, create_time, expire_time, revoke_time, last_use_time \
             FROM pgmoor.api_tokens WHERE user_id = $1 AND revoke_time IS NULL \
             AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3)) \
             ORDER BY create_time DESC, id DESC LIMIT $4",
        )
        .bind(user_id.as_uuid())
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let tokens = rows
            .into_iter()
            .map(ApiToken::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(tokens, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Looks a presented token up. `None` for one that was never ours.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, hash: &TokenHash) -> Result<Option<FoundApiToken>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<FoundRow> = sqlx::query_as(
            "SELECT t.id AS token_id, t.display_name AS token_display_name, t.create_time AS \
             token_create_time, \
             t.expire_time, t.revoke_time, t.last_use_time, \
             coalesce(t.expire_time <= clock_timestamp(), false) AS expired, \
             u.id, u.username, u.display_name, u.administrator, u.disabled, u.version, u.create_time, \
             u.update_time, u.vouch_expire_time \
             FROM pgmoor.api_tokens AS t JOIN pgmoor.users AS u ON u.id = t.user_id WHERE t.hash = $1",
        )
        .bind(hash.as_slice())
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let user = User::try_from(row.user)?;
        let token = ApiToken::try_from(ApiTokenRow {
            id: row.token_id,
            user_id: user.id.as_uuid(),
            display_name: row.token_display_name,
            create_time: row.token_create_time,
            expire_time: row.expire_time,
            revoke_time: row.revoke_time,
            last_use_time: row.last_use_time,
        })?;
        Ok(Some(match () {
            () if token.revoke_time.is_some() || user.disabled => FoundApiToken::Revoked,
            () if row.expired => FoundApiToken::Expired,
            () => FoundApiToken::Valid { token, user },
        }))
    }

    /// Notes that a token was used, to the minute: most calls write nothing. Only for the role `pgmoor_api`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch(&self, id: ApiTokenId) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.api_tokens SET last_use_time = date_trunc('minute', clock_timestamp()) \
                   WHERE id = $1 AND last_use_time IS DISTINCT FROM date_trunc('minute', clock_timestamp())";
        sqlx::query(sql)
            .bind(id.as_uuid())
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Revokes a token and tells the verifiers. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`RevokeApiTokenError::NotFound`] where the user has no such token.
    pub async fn revoke(&self, user_id: UserId, id: ApiTokenId) -> Result<(), RevokeApiTokenError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let revoked: Option<bool> = sqlx::query_scalar(
            "SELECT revoke_time IS NOT NULL FROM pgmoor.api_tokens WHERE id = $1 AND user_id = $2 FOR UPDATE",
        )
        .bind(id.as_uuid())
        .bind(user_id.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
        if revoked.ok_or(RevokeApiTokenError::NotFound)? {
            return Ok(());
        }
        sqlx::query("UPDATE pgmoor.api_tokens SET revoke_time = clock_timestamp() WHERE id = $1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        revocations::append(&mut tx, &[Subject::ApiToken(id)]).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Revokes all tokens of a user. The feed hears of the user as a whole.
pub(crate) async fn revoke_all(tx: &mut PgConnection, user_id: UserId) -> Result<(), sqlx::Error> {
    let sql = "UPDATE pgmoor.api_tokens SET revoke_time = clock_timestamp() WHERE user_id = $1 AND \
        revoke_time IS NULL";
    sqlx::query(sql)
        .bind(user_id.as_uuid())
        .execute(tx)
        .await
        .map(drop)
}

#[derive(sqlx::FromRow)]
struct ApiTokenRow {
    id: Uuid,
    user_id: Uuid,
    display_name: String,
    create_time: OffsetDateTime,
    expire_time: Option<OffsetDateTime>,
    revoke_time: Option<OffsetDateTime>,
    last_use_time: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct FoundRow {
    token_id: Uuid,
    token_display_name: String,
    token_create_time: OffsetDateTime,
    expire_time: Option<OffsetDateTime>,
    revoke_time: Option<OffsetDateTime>,
    last_use_time: Option<OffsetDateTime>,
    expired: bool,
    #[sqlx(flatten)]
    user: UserRow,
}

impl TryFrom<ApiTokenRow> for ApiToken {
    type Error = Inconsistency;

    fn try_from(row: ApiTokenRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("api_tokens", column, row.id);
        Ok(Self {
            id: ApiTokenId::from_uuid(row.id),
            user_id: UserId::from_uuid(row.user_id),
            display_name: row.display_name.parse().map_err(|_| wrong("display_name"))?,
            create_time: row.create_time,
            expire_time: row.expire_time,
            revoke_time: row.revoke_time,
            last_use_time: row.last_use_time,
        })
    }
}
