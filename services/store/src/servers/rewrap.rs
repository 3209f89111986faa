//! Sealed passwords on their way from one key to another.

use domain::credential::CredentialKind;
use domain::id::CredentialId;

use super::credential::{CredentialRow, all_credentials};
use super::row::ServerRow;
use super::{Credential, Server, Servers};
use crate::error::{Inconsistency, StoreError};

/// A sealed password and the server it is sealed for, as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFor {
    /// The server.
    pub server: Server,
    /// The sealed password.
    pub credential: Credential,
}

#[derive(sqlx::FromRow)]
struct SealedForRow {
    #[sqlx(flatten)]
    credential: CredentialRow,
    #[sqlx(flatten)]
    server: ServerRow,
}

impl Servers<'_> {
    /// The passwords that are sealed to another key than `key_id`, by id after `after`. For the owner of the
    /// schema.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sealed_to_others(
        &self,
        key_id: &str,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<SealedFor>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = concat!(
            "SELECT c.credential_id, c.kind, c.user_id, c.role_name, c.sealed, c.key_id, ",
            columns!(),
            " FROM ",
            all_credentials!(),
            " AS c JOIN pgmoor.servers AS s ON s.id = c.server_id \
             WHERE c.key_id <> $1 AND ($2::uuid IS NULL OR c.credential_id > $2) \
             ORDER BY c.credential_id LIMIT $3",
        );
        let rows: Vec<SealedForRow> = sqlx::query_as(sql)
            .bind(key_id)
            .bind(after.map(|id| id.as_uuid()))
            .bind(i64::from(limit))
            .fetch_all(&mut *connection)
            .await?;
        let found = rows.into_iter().map(|row| {
            let server: Server = row.server.try_into()?;
            let credential = row.credential.read(server.id)?;
            Ok(SealedFor { server, credential })
        });
        found.collect::<Result<_, Inconsistency>>().map_err(Into::into)
    }

    /// Replaces a sealed password by the same one under another key. False where it was replaced or forgotten
    /// since it was read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rewrap(&self, old: &Credential, sealed: &[u8], key_id: &str) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = match old.kind {
            CredentialKind::Shared => {
                "UPDATE pgmoor.credentials SET sealed = $3, key_id = $4 WHERE id = $1 AND sealed = $2"
            }
            CredentialKind::ReadOnly | CredentialKind::Personal(_) => {
                "UPDATE pgmoor.role_credentials SET sealed = $3, key_id = $4 WHERE id = $1 AND sealed = $2"
            }
        };
        let done = sqlx::query(sql)
            .bind(old.id.as_uuid())
            .bind(&old.sealed)
            .bind(sealed)
            .bind(key_id)
            .execute(&mut *connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
