//! Sealed passwords. This crate sees ciphertext only.

use domain::id::{CredentialId, ServerId};
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use uuid::Uuid;

use super::{Server, Servers, read};
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::etag::Etag;

/// A sealed password to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCredential {
    /// The id.
    pub id: CredentialId,
    /// The sealed password.
    pub sealed: Vec<u8>,
    /// The key it is sealed to.
    pub key_id: String,
}

/// A sealed password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The id.
    pub id: CredentialId,
    /// The server it is for.
    pub server_id: ServerId,
    /// The sealed password.
    pub sealed: Vec<u8>,
    /// The key it is sealed to.
    pub key_id: String,
}

/// Why a password was not set.
#[derive(Debug, Error)]
pub enum SetCredentialError {
    /// There is no such server.
    #[error("there is no such server")]
    NotFound,
    /// The server changed since the etag was read: the password may be sealed for another destination.
    #[error("the server changed since the etag was read")]
    EtagMismatch,
    /// The password is sealed to a key that is not known.
    #[error("the sealing key is not known")]
    SealingKeyUnknown,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SetCredentialError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("credentials_key_id") => Self::SealingKeyUnknown,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for SetCredentialError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

impl Servers<'_> {
    /// Sets a server's password, or forgets it (`None`). `etag` is the server's as read with the destination
    /// the password was sealed for: it is needed, lest a password lands where it cannot be opened.
    ///
    /// # Errors
    /// [`SetCredentialError`] by cause.
    pub async fn set_credential(
        &self,
        id: ServerId,
        credential: Option<&NewCredential>,
        etag: &Etag,
    ) -> Result<Server, SetCredentialError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let version: Option<i64> =
            sqlx::query_scalar("SELECT version FROM pgmoor.servers WHERE id = $1 FOR UPDATE")
                .bind(id.as_uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if !Etag::allows(Some(etag), version.ok_or(SetCredentialError::NotFound)?) {
            return Err(SetCredentialError::EtagMismatch);
        }
        delete(&mut tx, id).await?;
        if let Some(credential) = credential {
            insert(&mut tx, id, credential).await?;
        }
        let sql =
            "UPDATE pgmoor.servers SET version = version + 1, update_time = clock_timestamp() WHERE id = $1";
        sqlx::query(sql).bind(id.as_uuid()).execute(&mut *tx).await?;
        let row = read(&mut tx, id).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Reads a server's sealed password. For the roles `pgmoor_pooler` and `pgmoor_worker`: `pgmoor_api` may
    /// not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn credential(&self, id: ServerId) -> Result<Option<Credential>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<(Uuid, Vec<u8>, String)> =
            sqlx::query_as("SELECT id, sealed, key_id FROM pgmoor.credentials WHERE server_id = $1")
                .bind(id.as_uuid())
                .fetch_optional(&mut *connection)
                .await?;
        Ok(row.map(|(credential_id, sealed, key_id)| Credential {
            id: CredentialId::from_uuid(credential_id),
            server_id: id,
            sealed,
            key_id,
        }))
    }
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    server_id: ServerId,
    credential: &NewCredential,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO pgmoor.credentials (id, server_id, sealed, key_id) VALUES ($1, $2, $3, $4)")
        .bind(credential.id.as_uuid())
        .bind(server_id.as_uuid())
        .bind(&credential.sealed)
        .bind(&credential.key_id)
        .execute(tx)
        .await
        .map(drop)
}

pub(super) async fn delete(tx: &mut PgConnection, server_id: ServerId) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM pgmoor.credentials WHERE server_id = $1";
    sqlx::query(sql)
        .bind(server_id.as_uuid())
        .execute(tx)
        .await
        .map(drop)
}
