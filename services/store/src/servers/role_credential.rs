//! Credentials that log in as a role of their own: a server's read-only one, and those of users.
//!
//! Invariant: each is sealed for where its server points. When that changes they are deleted in the same transaction.

use domain::credential::CredentialKind;
use domain::id::{ServerId, UserId};
use domain::name::Identifier;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::credential::{NewCredential, SetCredentialError};
use super::{Server, Servers, read};
use crate::error::{Inconsistency, StoreError};
use crate::etag::Etag;

/// A credential with a role of its own to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoleCredential {
    /// The PostgreSQL role it logs in as.
    pub role: Identifier,
    /// Its sealed password.
    pub credential: NewCredential,
}

/// What is seen of a credential: no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleCredential {
    /// The PostgreSQL role it logs in as.
    pub role: Identifier,
    /// When it was set.
    pub create_time: OffsetDateTime,
}

impl Servers<'_> {
    /// Sets a credential that has a role of its own. `etag` is the server's as read with the destination the password was sealed
    /// for.
    ///
    /// # Errors
    /// [`SetCredentialError`] by cause.
    pub async fn set_role_credential(
        &self,
        id: ServerId,
        kind: CredentialKind,
        new: &NewRoleCredential,
        etag: &Etag,
    ) -> Result<Server, SetCredentialError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        if !Etag::allows(Some(etag), lock(&mut tx, id).await?) {
            return Err(SetCredentialError::EtagMismatch);
        }
        remove(&mut tx, id, kind).await?;
        sqlx::query(
            "INSERT INTO pgmoor.role_credentials (id, server_id, kind, user_id, role_name, sealed, key_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(new.credential.id.as_uuid())
        .bind(id.as_uuid())
        .bind(kind.as_str())
        .bind(kind.user().map(|user| user.as_uuid()))
        .bind(new.role.as_str())
        .bind(&new.credential.sealed)
        .bind(&new.credential.key_id)
        .execute(&mut *tx)
        .await?;
        changed(&mut tx, id, kind).await?;
        let row = read(&mut tx, id).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Deletes a credential that has a role of its own. Nothing where there is none.
    ///
    /// # Errors
    /// [`SetCredentialError`] by cause.
    pub async fn delete_role_credential(
        &self,
        id: ServerId,
        kind: CredentialKind,
    ) -> Result<Option<Server>, SetCredentialError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        lock(&mut tx, id).await?;
        if remove(&mut tx, id, kind).await? == 0 {
            return Ok(None);
        }
        changed(&mut tx, id, kind).await?;
        let row = read(&mut tx, id).await?;
        tx.commit().await?;
        Ok(Some(row.try_into()?))
    }

    /// What is seen of a credential that has a role of its own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role_credential(
        &self,
        id: ServerId,
        kind: CredentialKind,
    ) -> Result<Option<RoleCredential>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<(Uuid, String, OffsetDateTime)> = sqlx::query_as(
            "SELECT id, role_name, create_time FROM pgmoor.role_credentials \
             WHERE server_id = $1 AND kind = $2 AND user_id IS NOT DISTINCT FROM $3",
        )
        .bind(id.as_uuid())
        .bind(kind.as_str())
        .bind(kind.user().map(|user| user.as_uuid()))
        .fetch_optional(&mut *connection)
        .await?;
        let Some((row, role, create_time)) = row else {
            return Ok(None);
        };
        let wrong = |_| Inconsistency::new("role_credentials", "role_name", row);
        let role = role.parse().map_err(wrong)?;
        Ok(Some(RoleCredential { role, create_time }))
    }

    /// On which of these servers a user has a credential of their own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn with_personal_credential(
        &self,
        user: UserId,
        servers: &[ServerId],
    ) -> Result<Vec<ServerId>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let found: Vec<Uuid> = sqlx::query_scalar(
            "SELECT server_id FROM pgmoor.role_credentials \
             WHERE kind = 'personal' AND user_id = $1 AND server_id = ANY($2)",
        )
        .bind(user.as_uuid())
        .bind(servers.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
        Ok(found.into_iter().map(ServerId::from_uuid).collect())
    }
}

/// Deletes all of a server.
pub(super) async fn delete_all(tx: &mut PgConnection, server_id: ServerId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM pgmoor.role_credentials WHERE server_id = $1")
        .bind(server_id.as_uuid())
        .execute(tx)
        .await
        .map(drop)
}

/// The server's version.
async fn lock(tx: &mut PgConnection, id: ServerId) -> Result<i64, SetCredentialError> {
    let version = sqlx::query_scalar("SELECT version FROM pgmoor.servers WHERE id = $1 FOR UPDATE")
        .bind(id.as_uuid())
        .fetch_optional(tx)
        .await?;
    version.ok_or(SetCredentialError::NotFound)
}

async fn remove(tx: &mut PgConnection, id: ServerId, kind: CredentialKind) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM pgmoor.role_credentials \
         WHERE server_id = $1 AND kind = $2 AND user_id IS NOT DISTINCT FROM $3",
    )
    .bind(id.as_uuid())
    .bind(kind.as_str())
    .bind(kind.user().map(|user| user.as_uuid()))
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// What everybody sees of the server is another. What one user has there is their own matter.
async fn changed(tx: &mut PgConnection, id: ServerId, kind: CredentialKind) -> Result<(), sqlx::Error> {
    if kind.user().is_some() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE pgmoor.servers SET version = version + 1, update_time = clock_timestamp() WHERE id = $1",
    )
    .bind(id.as_uuid())
    .execute(tx)
    .await
    .map(drop)
}
