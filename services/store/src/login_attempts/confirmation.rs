//! Logins whose browser came back and whose person has yet to say that they began them.
//!
//! Invariant: until they say so, nobody collects the login; and they say so, or the contrary, once.

use domain::id::{LoginAttemptId, UserId};
use uuid::Uuid;

use super::{LoginAttempts, LoginOutcome, SecretHash};
use crate::error::StoreError;

/// A login that its person has decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedLoginAttempt {
    /// The id.
    pub id: LoginAttemptId,
    /// The provider.
    pub provider: String,
    /// Its issuer.
    pub issuer: String,
    /// Who the person is there.
    pub subject: String,
    /// Who they are here.
    pub user_id: UserId,
    /// The provider's refresh token, encrypted. Only of a login that was declined: the other one needs it.
    pub provider_token: Option<Vec<u8>>,
}

impl LoginAttempts<'_> {
    /// Writes down whom the provider vouched for, and with what they say that the login is theirs. False where it is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold(
        &self,
        id: LoginAttemptId,
        outcome: LoginOutcome,
        confirm_hash: &SecretHash,
    ) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.login_attempts SET admitted_user_id = $2, issuer = $3, subject = $4, provider_token = $5, \
             confirm_hash = $6, sealed = '' WHERE id = $1 AND user_id IS NULL AND admitted_user_id IS NULL \
             AND failure IS NULL AND expire_time > clock_timestamp()",
        )
        .bind(id.as_uuid())
        .bind(outcome.user_id.as_uuid())
        .bind(outcome.issuer)
        .bind(outcome.subject)
        .bind(outcome.provider_token)
        .bind(confirm_hash.as_slice())
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The person says that the login is theirs: it can be collected. None where there is no such login, or it was decided.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn confirm(
        &self,
        confirm_hash: &SecretHash,
    ) -> Result<Option<DecidedLoginAttempt>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<DecidedRow> = sqlx::query_as(
            "UPDATE pgmoor.login_attempts SET user_id = admitted_user_id, confirm_hash = NULL \
             WHERE confirm_hash = $1 AND admitted_user_id IS NOT NULL AND user_id IS NULL AND failure IS NULL \
             AND expire_time > clock_timestamp() \
             RETURNING id, provider, issuer, subject, admitted_user_id, NULL::bytea",
        )
        .bind(confirm_hash.as_slice())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(decided))
    }

    /// The person says that it is not: it has failed. None where there is no such login, or it was decided.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn decline(
        &self,
        confirm_hash: &SecretHash,
        failure: &str,
    ) -> Result<Option<DecidedLoginAttempt>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<DecidedRow> = sqlx::query_as(
            "UPDATE pgmoor.login_attempts SET failure = $2, confirm_hash = NULL \
             WHERE confirm_hash = $1 AND admitted_user_id IS NOT NULL AND user_id IS NULL AND failure IS NULL \
             AND expire_time > clock_timestamp() \
             RETURNING id, provider, issuer, subject, admitted_user_id, provider_token",
        )
        .bind(confirm_hash.as_slice())
        .bind(failure)
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(decided))
    }
}

/// Id, provider, issuer, subject, user, the provider's token.
type DecidedRow = (Uuid, String, String, String, Uuid, Option<Vec<u8>>);

fn decided((id, provider, issuer, subject, user_id, provider_token): DecidedRow) -> DecidedLoginAttempt {
    DecidedLoginAttempt {
        id: LoginAttemptId::from_uuid(id),
        provider,
        issuer,
        subject,
        user_id: UserId::from_uuid(user_id),
        provider_token,
    }
}
