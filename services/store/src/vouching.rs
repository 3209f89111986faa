//! What a provider's word is good for beyond the login it was given for: the API tokens of somebody who has no other way in.
//!
//! Invariant: a provider's no counts where no other provider knows the user, and never for a user with a password.

use std::time::Duration;

use domain::id::UserId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;
use crate::{Store, seconds};

/// What providers say of users. Made by [`Store::vouching`].
#[derive(Debug, Clone, Copy)]
pub struct Vouching<'a> {
    store: &'a Store,
}

impl Store {
    /// What providers say of users.
    #[must_use]
    pub fn vouching(&self) -> Vouching<'_> {
        Vouching { store: self }
    }
}

impl Vouching<'_> {
    /// Writes down that a provider does not vouch for a user any more: their API tokens stop. True where they did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deny(&self, user: UserId, provider: &str) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.users AS u SET vouch_expire_time = clock_timestamp() \
             WHERE id = $1 AND kind = 'person' AND password_hash IS NULL \
             AND (vouch_expire_time IS NULL OR vouch_expire_time > clock_timestamp()) AND NOT EXISTS \
                 (SELECT FROM pgmoor.identities AS i WHERE i.user_id = u.id AND i.provider <> $2)",
        )
        .bind(user.as_uuid())
        .bind(provider)
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Writes down that a provider vouches for a user: their API tokens work for so long.
pub(crate) async fn vouch(tx: &mut PgConnection, user: Uuid, lifetime: Duration) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE pgmoor.users SET vouch_expire_time = CASE WHEN password_hash IS NULL \
             THEN clock_timestamp() + make_interval(secs => $2) END WHERE id = $1",
    )
    .bind(user)
    .bind(seconds(lifetime))
    .execute(tx)
    .await
    .map(drop)
}
