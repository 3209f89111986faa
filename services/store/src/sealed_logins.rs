//! What rests sealed with the login key, on its way from one key to another.
//!
//! Invariant: a text is replaced only where it is the one that was read. What somebody wrote meanwhile stays.

use uuid::Uuid;

use crate::Store;
use crate::error::StoreError;

/// Where a text rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedPlace {
    /// The private half of the key that signs. Bound to its id and, in hexadecimal, its public half.
    SigningKey,
    /// The provider's refresh token of a login. Bound to issuer and subject.
    LoginToken,
    /// The same of a login under way.
    AttemptToken,
    /// What a login under way goes on with. Bound to its id and its code challenge.
    Attempt,
}

impl SealedPlace {
    /// All of them, in the order to look at them: without what signs the others are of no use.
    pub const ALL: [Self; 4] = [
        Self::SigningKey,
        Self::LoginToken,
        Self::AttemptToken,
        Self::Attempt,
    ];

    /// Those that are of use still, by id.
    const fn select(self) -> &'static str {
        match self {
            Self::SigningKey => {
                "SELECT id, id::text AS signer, encode(public_key, 'hex'), private_key FROM pgmoor.signing_keys \
                 WHERE retire_time IS NULL AND octet_length(private_key) > 32 \
                 AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2"
            }
            Self::LoginToken => {
                "SELECT id, issuer, subject, provider_token FROM pgmoor.logins \
                 WHERE end_time IS NULL AND provider_token IS NOT NULL AND issuer IS NOT NULL AND subject IS NOT NULL \
                 AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2"
            }
            Self::AttemptToken => {
                "SELECT id, issuer, subject, provider_token FROM pgmoor.login_attempts \
                 WHERE expire_time > clock_timestamp() AND provider_token IS NOT NULL \
                 AND issuer IS NOT NULL AND subject IS NOT NULL \
                 AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2"
            }
            Self::Attempt => {
                "SELECT id, id::text AS attempt, code_challenge, sealed FROM pgmoor.login_attempts \
                 WHERE expire_time > clock_timestamp() AND sealed <> '' \
                 AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2"
            }
        }
    }

    const fn update(self) -> &'static str {
        match self {
            Self::SigningKey => {
                "UPDATE pgmoor.signing_keys SET private_key = $3 WHERE id = $1 AND private_key = $2"
            }
            Self::LoginToken => {
                "UPDATE pgmoor.logins SET provider_token = $3 WHERE id = $1 AND provider_token = $2"
            }
            Self::AttemptToken => {
                "UPDATE pgmoor.login_attempts SET provider_token = $3 WHERE id = $1 AND provider_token = $2"
            }
            Self::Attempt => "UPDATE pgmoor.login_attempts SET sealed = $3 WHERE id = $1 AND sealed = $2",
        }
    }
}

/// A sealed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedText {
    /// Where it rests.
    pub place: SealedPlace,
    /// In which row.
    pub id: Uuid,
    /// What it is bound to, as its place says.
    pub bound_to: (String, String),
    /// The text.
    pub sealed: Vec<u8>,
}

/// What is sealed with the login key. Made by [`Store::sealed_logins`].
#[derive(Debug, Clone, Copy)]
pub struct SealedLogins<'a> {
    store: &'a Store,
}

impl Store {
    /// What is sealed with the login key.
    #[must_use]
    pub fn sealed_logins(&self) -> SealedLogins<'_> {
        SealedLogins { store: self }
    }
}

impl SealedLogins<'_> {
    /// The sealed texts of a place, by id after `after`, at most `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        place: SealedPlace,
        after: Option<Uuid>,
        most: u16,
    ) -> Result<Vec<SealedText>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, String, String, Vec<u8>)> = sqlx::query_as(place.select())
            .bind(after)
            .bind(i64::from(most))
            .fetch_all(&mut *connection)
            .await?;
        let found = rows.into_iter().map(|(id, one, two, sealed)| SealedText {
            place,
            id,
            bound_to: (one, two),
            sealed,
        });
        Ok(found.collect())
    }

    /// Puts what was sealed anew in the place of a text. False where it is another one by now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace(&self, found: &SealedText, anew: &[u8]) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(found.place.update())
            .bind(found.id)
            .bind(found.sealed.as_slice())
            .bind(anew)
            .execute(&mut *connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
