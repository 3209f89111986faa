//! What a provider's word is good for beyond the login it was given for: the API tokens of somebody who has no other way in.
//!
//! Invariant: a provider's no counts for the user of the identity it is about, whatever the provider is called here, and never for
//! a user with a password.

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
    /// Writes down that a provider does not vouch for an identity of its own any more: the API tokens of its user stop. The user
    /// where they did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deny(&self, issuer: &str, subject: &str) -> Result<Option<UserId>, StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(deny(&mut connection, issuer, subject).await?)
    }
}

pub(crate) async fn deny(
    connection: &mut PgConnection,
    issuer: &str,
    subject: &str,
) -> Result<Option<UserId>, sqlx::Error> {
    let denied: Option<Uuid> = sqlx::query_scalar(
        "UPDATE pgmoor.users AS u SET vouch_expire_time = clock_timestamp() FROM pgmoor.identities AS i \
         WHERE i.issuer = $1 AND i.subject = $2 AND u.id = i.user_id AND u.kind = 'person' \
         AND u.password_hash IS NULL AND (u.vouch_expire_time IS NULL OR u.vouch_expire_time > clock_timestamp()) \
         RETURNING u.id",
    )
    .bind(issuer)
    .bind(subject)
    .fetch_optional(connection)
    .await?;
    Ok(denied.map(UserId::from_uuid))
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
