//! Sealed passwords. This crate sees ciphertext only.

use domain::access::Access;
use domain::credential::{CredentialKind, CredentialMode, NoCredential};
use domain::id::{CredentialId, InstanceId, ServerId, UserId};
use domain::name::Identifier;
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
    /// Whose it is.
    pub kind: CredentialKind,
    /// The PostgreSQL role it logs in as.
    pub role: Identifier,
    /// The sealed password.
    pub sealed: Vec<u8>,
    /// The key it is sealed to.
    pub key_id: String,
}

/// The credentials of a server that a user may come to log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    user: UserId,
    there: Vec<Credential>,
}

impl Credentials {
    /// The one that the user logs in with who may go so far.
    ///
    /// # Errors
    /// [`NoCredential`] where there is none.
    pub fn choose(self, mode: CredentialMode, access: Access) -> Result<Credential, NoCredential> {
        let kinds: Vec<_> = self.there.iter().map(|credential| credential.kind).collect();
        let chosen = mode.choose(self.user, access, &kinds)?;
        self.of(chosen).ok_or(NoCredential::Missing)
    }

    /// The one of that kind.
    #[must_use]
    pub fn of(self, kind: CredentialKind) -> Option<Credential> {
        self.there.into_iter().find(|credential| credential.kind == kind)
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct CredentialRow {
    credential_id: Uuid,
    kind: String,
    user_id: Option<Uuid>,
    role_name: String,
    sealed: Vec<u8>,
    key_id: String,
}

impl CredentialRow {
    pub(super) fn read(self, server_id: ServerId) -> Result<Credential, Inconsistency> {
        let wrong = |column| Inconsistency::new("role_credentials", column, self.credential_id);
        Ok(Credential {
            id: CredentialId::from_uuid(self.credential_id),
            server_id,
            kind: CredentialKind::of(&self.kind, self.user_id.map(UserId::from_uuid))
                .ok_or_else(|| wrong("kind"))?,
            role: self.role_name.parse().map_err(|_| wrong("role_name"))?,
            sealed: self.sealed,
            key_id: self.key_id,
        })
    }
}

/// All credentials of all servers, as [`CredentialRow`] and `server_id`.
macro_rules! all_credentials {
    () => {
        "(SELECT c.id AS credential_id, c.server_id, 'shared' AS kind, NULL::uuid AS user_id, \
         s.username AS role_name, c.sealed, c.key_id \
         FROM pgmoor.credentials AS c JOIN pgmoor.servers AS s ON s.id = c.server_id \
         UNION ALL SELECT r.id, r.server_id, r.kind, r.user_id, r.role_name, r.sealed, r.key_id \
         FROM pgmoor.role_credentials AS r)"
    };
}
pub(super) use all_credentials;

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
            Some("credentials_key_id" | "role_credentials_key_id") => Self::SealingKeyUnknown,
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

    /// Reads the credentials of a server that a user may come to log in with: what is everybody's, and their own. For the
    /// roles `pgmoor_pooler` and `pgmoor_worker`: `pgmoor_api` may not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn credentials(&self, id: ServerId, user: UserId) -> Result<Credentials, StoreError> {
        let there = self.of_server(id, Some(user)).await?;
        Ok(Credentials { user, there })
    }

    /// Reads one credential of a server, as [`Servers::credentials`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn credential(
        &self,
        id: ServerId,
        kind: CredentialKind,
    ) -> Result<Option<Credential>, StoreError> {
        let mut there = self.of_server(id, kind.user()).await?.into_iter();
        Ok(there.find(|credential| credential.kind == kind))
    }

    /// What can be logged in with to an instance, `most` at a time: the credentials of the servers that lead there, those of the
    /// newest first. Either those that are everybody's or personal ones, of users who are not disabled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn logins_on(
        &self,
        instance: InstanceId,
        personal: bool,
        except: &[CredentialId],
        most: u32,
    ) -> Result<Vec<(ServerId, CredentialKind)>, StoreError> {
        let except: Vec<Uuid> = except.iter().map(|id| id.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, String, Option<Uuid>)> = sqlx::query_as(concat!(
            "SELECT c.server_id, c.kind, c.user_id FROM ",
            all_credentials!(),
            " AS c JOIN pgmoor.servers AS s ON s.id = c.server_id \
             LEFT JOIN pgmoor.users AS u ON u.id = c.user_id \
             WHERE s.instance_id = $1 AND (c.user_id IS NOT NULL) = $2 AND u.disabled IS NOT TRUE \
             AND c.credential_id <> ALL ($3) \
             ORDER BY s.create_time DESC, s.id, c.kind, c.user_id LIMIT $4"
        ))
        .bind(instance.as_uuid())
        .bind(personal)
        .bind(except)
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await?;
        let login = |(server, kind, user): (Uuid, String, Option<Uuid>)| {
            let kind = CredentialKind::of(&kind, user.map(UserId::from_uuid))?;
            Some((ServerId::from_uuid(server), kind))
        };
        Ok(rows.into_iter().filter_map(login).collect())
    }

    async fn of_server(&self, id: ServerId, user: Option<UserId>) -> Result<Vec<Credential>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<CredentialRow> = sqlx::query_as(concat!(
            "SELECT c.* FROM ",
            all_credentials!(),
            " AS c WHERE c.server_id = $1 AND (c.user_id IS NULL OR c.user_id = $2)"
        ))
        .bind(id.as_uuid())
        .bind(user.map(|user| user.as_uuid()))
        .fetch_all(&mut *connection)
        .await?;
        let there = rows.into_iter().map(|row| row.read(id));
        Ok(there.collect::<Result<_, Inconsistency>>()?)
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
