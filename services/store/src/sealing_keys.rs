//! The public keys that passwords are sealed to. Poolers and workers, who hold the private halves, say which
//! they are.

use time::OffsetDateTime;

use crate::Store;
use crate::error::StoreError;

/// A public key that passwords are sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKey {
    /// The key's id.
    pub key_id: String,
    /// The public key's bytes.
    pub public_key: Vec<u8>,
    /// When it was published.
    pub create_time: OffsetDateTime,
}

/// The sealing keys. Made by [`Store::sealing_keys`].
#[derive(Debug, Clone, Copy)]
pub struct SealingKeys<'a> {
    store: &'a Store,
}

impl Store {
    /// The sealing keys.
    #[must_use]
    pub fn sealing_keys(&self) -> SealingKeys<'_> {
        SealingKeys { store: self }
    }
}

impl SealingKeys<'_> {
    /// Publishes a key. Publishing it again changes nothing; the id is made from the key, so that it never
    /// means another one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn publish(&self, key_id: &str, public_key: &[u8]) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "INSERT INTO pgmoor.sealing_keys (key_id, public_key) VALUES ($1, $2) \
                   ON CONFLICT ON CONSTRAINT sealing_keys_pkey DO NOTHING";
        sqlx::query(sql)
            .bind(key_id)
            .bind(public_key)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Seals nothing to a key any more. What is sealed to it can still be opened by whoever has its private
    /// half.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retire(&self, key_id: &str) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.sealing_keys SET retire_time = clock_timestamp() \
                   WHERE key_id = $1 AND retire_time IS NULL";
        sqlx::query(sql).bind(key_id).execute(&mut *connection).await?;
        Ok(())
    }

    /// Has passwords sealed to this published key, whether it is the youngest or not, or was retired.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prefer(&self, key_id: &str) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.sealing_keys SET create_time = clock_timestamp(), retire_time = NULL \
                   WHERE key_id = $1";
        sqlx::query(sql).bind(key_id).execute(&mut *connection).await?;
        Ok(())
    }

    /// The keys that passwords are sealed to, and how many are to each.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn in_use(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "SELECT key_id, count(*) FROM (SELECT key_id FROM pgmoor.credentials \
                   UNION ALL SELECT key_id FROM pgmoor.role_credentials) AS c GROUP BY key_id ORDER BY key_id";
        Ok(sqlx::query_as(sql).fetch_all(&mut *connection).await?)
    }

    /// Retires every key but this one. Returns those that were not retired before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retire_all_but(&self, key_id: &str) -> Result<Vec<String>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.sealing_keys SET retire_time = clock_timestamp() \
                   WHERE key_id <> $1 AND retire_time IS NULL RETURNING key_id";
        Ok(sqlx::query_scalar(sql)
            .bind(key_id)
            .fetch_all(&mut *connection)
            .await?)
    }

    /// The key to seal to: the youngest that is not retired. `None` before the first pooler or worker
    /// published one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn current(&self) -> Result<Option<SealingKey>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<(String, Vec<u8>, OffsetDateTime)> = sqlx::query_as(
            "SELECT key_id, public_key, create_time FROM pgmoor.sealing_keys WHERE retire_time IS NULL \
             ORDER BY create_time DESC, key_id LIMIT 1",
        )
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(|(key_id, public_key, create_time)| SealingKey {
            key_id,
            public_key,
            create_time,
        }))
    }
}
