//! The keys that sign access tokens: made by whichever API instance comes first, shared by all.
//!
//! Invariant: one key signs; the ones before it verify until they are retired. Private halves are for the
//! role `pgmoor_api`.

mod private_key;

use std::fmt;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::private_key::PrivateKey;
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError};
use crate::{Store, seconds};

/// A signing key's id: the `kid` of the tokens it signs.
pub type SigningKeyId = Uuid;

/// A key pair to keep.
pub struct NewSigningKey {
    /// The id.
    pub id: SigningKeyId,
    /// The Ed25519 private key.
    pub private_key: PrivateKey,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
}

/// The key that signs.
pub struct SigningKey {
    /// The id.
    pub id: SigningKeyId,
    /// The Ed25519 private key.
    pub private_key: PrivateKey,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// When it was made.
    pub create_time: OffsetDateTime,
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    /// The id.
    pub id: SigningKeyId,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// When it stops verifying, if that is known.
    pub retire_time: Option<OffsetDateTime>,
}

impl fmt::Debug for NewSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys that sign access tokens. Made by [`Store::signing_keys`].
#[derive(Debug, Clone, Copy)]
pub struct SigningKeys<'a> {
    store: &'a Store,
}

impl Store {
    /// The keys that sign access tokens.
    #[must_use]
    pub fn signing_keys(&self) -> SigningKeys<'_> {
        SigningKeys { store: self }
    }
}

impl SigningKeys<'_> {
    /// The key that signs. Where there is none, `new` becomes it; of several processes that offer one at
    /// once, one wins and all get the winner's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn current_or_insert(&self, new: NewSigningKey) -> Result<SigningKey, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        Counter::SigningKeys.lock(&mut tx).await?;
        if let Some(current) = current(&mut tx).await? {
            return Ok(current.try_into()?);
        }
        let key = insert(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(key.try_into()?)
    }

    /// The key that signs, if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn current(&self) -> Result<Option<SigningKey>, StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(current(&mut connection)
            .await?
            .map(SigningKey::try_from)
            .transpose()?)
    }

    /// Makes `new` the key that signs, where the one that does is older than `age`; else does nothing. See
    /// [`SigningKeys::rotate`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate_if_older(
        &self,
        new: NewSigningKey,
        age: Duration,
        overlap: Duration,
    ) -> Result<Option<SigningKey>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        Counter::SigningKeys.lock(&mut tx).await?;
        let sql = "SELECT EXISTS (SELECT FROM pgmoor.signing_keys WHERE retire_time IS NULL \
                   AND create_time < clock_timestamp() - make_interval(secs => $1))";
        let old: bool = sqlx::query_scalar(sql)
            .bind(seconds(age))
            .fetch_one(&mut *tx)
            .await?;
        if !old {
            return Ok(None);
        }
        let key = replace(&mut tx, &new, overlap).await?;
        tx.commit().await?;
        Ok(Some(key.try_into()?))
    }

    /// Forgets keys that were retired longer than `age` ago. Returns how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "DELETE FROM pgmoor.signing_keys \
                   WHERE retire_time < clock_timestamp() - make_interval(secs => $1)";
        let done = sqlx::query(sql)
            .bind(seconds(age))
            .execute(&mut *connection)
            .await?;
        Ok(done.rows_affected())
    }

    /// Makes `new` the key that signs. The one before verifies for `overlap` more, which must exceed the
    /// lifetime of access tokens and the time instances take to notice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate(&self, new: NewSigningKey, overlap: Duration) -> Result<SigningKey, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        Counter::SigningKeys.lock(&mut tx).await?;
        let key = replace(&mut tx, &new, overlap).await?;
        tx.commit().await?;
        Ok(key.try_into()?)
    }

    /// The keys that verify now, oldest first. Every role may ask.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn verifying(&self) -> Result<Vec<VerifyingKey>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, Vec<u8>, Option<OffsetDateTime>)> = sqlx::query_as(
            "SELECT id, public_key, retire_time FROM pgmoor.signing_keys \
             WHERE retire_time IS NULL OR retire_time > clock_timestamp() ORDER BY create_time, id",
        )
        .fetch_all(&mut *connection)
        .await?;
        let keys = rows.into_iter().map(|(id, public_key, retire_time)| {
            Ok(VerifyingKey {
                id,
                public_key: raw_key(public_key, "public_key", id)?,
                retire_time,
            })
        });
        Ok(keys.collect::<Result<_, Inconsistency>>()?)
    }

    /// The revision of the keys: read [`SigningKeys::verifying`] again when it changes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(Counter::SigningKeys.current(&mut connection).await?)
    }
}

async fn current(connection: &mut PgConnection) -> Result<Option<SigningKeyRow>, sqlx::Error> {
    let sql =
        "SELECT id, private_key, public_key, create_time FROM pgmoor.signing_keys WHERE retire_time IS NULL";
    sqlx::query_as(sql).fetch_optional(connection).await
}

async fn replace(
    tx: &mut PgConnection,
    new: &NewSigningKey,
    overlap: Duration,
) -> Result<SigningKeyRow, sqlx::Error> {
    sqlx::query(
        "UPDATE pgmoor.signing_keys SET retire_time = clock_timestamp() + make_interval(secs => $1) \
         WHERE retire_time IS NULL",
    )
    .bind(seconds(overlap))
    .execute(&mut *tx)
    .await?;
    insert(tx, new).await
}

async fn insert(tx: &mut PgConnection, new: &NewSigningKey) -> Result<SigningKeyRow, sqlx::Error> {
    Counter::SigningKeys.next(tx).await?;
    sqlx::query_as(
        "INSERT INTO pgmoor.signing_keys (id, private_key, public_key) VALUES ($1, $2, $3) \
         RETURNING id, private_key, public_key, create_time",
    )
    .bind(new.id)
    .bind(new.private_key.as_bytes())
    .bind(new.public_key.as_slice())
    .fetch_one(tx)
    .await
}

#[derive(sqlx::FromRow)]
struct SigningKeyRow {
    id: Uuid,
    private_key: Vec<u8>,
    public_key: Vec<u8>,
    create_time: OffsetDateTime,
}

impl TryFrom<SigningKeyRow> for SigningKey {
    type Error = Inconsistency;

    fn try_from(row: SigningKeyRow) -> Result<Self, Inconsistency> {
        Ok(Self {
            id: row.id,
            private_key: PrivateKey::read(row.private_key)
                .ok_or_else(|| Inconsistency::new("signing_keys", "private_key", row.id))?,
            public_key: raw_key(row.public_key, "public_key", row.id)?,
            create_time: row.create_time,
        })
    }
}

fn raw_key(bytes: Vec<u8>, column: &'static str, row: Uuid) -> Result<[u8; 32], Inconsistency> {
    bytes
        .try_into()
        .map_err(|_| Inconsistency::new("signing_keys", column, row))
}
