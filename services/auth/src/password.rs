//! Passwords of local users: argon2id, as PHC strings.
//!
//! Invariant: to check a password takes the same work whether the user exists or not, and at most a fixed
//! number of passwords is worked on at a time: each needs 19 MiB and a core.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use domain::random::{self, Random};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::sync::Semaphore;

/// Shortest password, in characters.
pub const MIN_CHARS: usize = 12;
/// Longest password, in bytes. Longer ones would only cost us time.
pub const MAX_BYTES: usize = 1024;

/// OWASP Password Storage Cheat Sheet, argon2id: 19 MiB, 2 passes, 1 lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;

/// How many may wait for their turn, per password that is worked on. Whoever comes later is turned away at
/// once.
const WAITING_PER_PERMIT: usize = 32;
/// How long somebody waits for their turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a password was not hashed or checked.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// Shorter than [`MIN_CHARS`].
    #[error("a password has at least {MIN_CHARS} characters")]
    TooShort,
    /// Longer than [`MAX_BYTES`].
    #[error("a password has at most {MAX_BYTES} bytes")]
    TooLong,
    /// Too many passwords are being worked on.
    #[error("too many passwords are being checked")]
    Busy,
    /// Hashing failed, or the stored hash is not one of ours.
    #[error("the password hash cannot be computed")]
    Hash(#[source] password_hash::Error),
    /// The parameters of argon2id are refused by the library.
    #[error("the parameters of argon2id are refused")]
    Parameters(#[source] argon2::Error),
    /// The task that hashed the password died.
    #[error("hashing was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Hashes and checks passwords. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passwords {
    random: Arc<dyn Random>,
    argon2: Argon2<'static>,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// The hash of a password nobody knows: what the password of an absent user is checked against.
    nobody: Arc<str>,
}

impl Passwords {
    /// Works on at most `concurrency` passwords at a time. Takes a few milliseconds: it hashes one.
    ///
    /// # Errors
    /// Where argon2id refuses its parameters.
    pub fn new(random: Arc<dyn Random>, concurrency: usize) -> Result<Self, PasswordError> {
        let parameters = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(PasswordError::Parameters)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
        let secret: [u8; 32] = random::bytes(&*random);
        let nobody = hash(&argon2, &secret, &random::bytes(&*random))?;
        let concurrency = concurrency.max(1);
        Ok(Self {
            random,
            argon2,
            turns: Arc::new(Semaphore::new(concurrency)),
            places: Arc::new(Semaphore::new(concurrency * (1 + WAITING_PER_PERMIT))),
            nobody: nobody.into(),
        })
    }

    /// The PHC string of a new password.
    ///
    /// # Errors
    /// [`PasswordError::TooShort`] and [`PasswordError::TooLong`] are the user's, the others ours.
    pub async fn hash(&self, password: &SecretString) -> Result<SecretString, PasswordError> {
        let text = password.expose_secret();
        if text.chars().count() < MIN_CHARS {
            return Err(PasswordError::TooShort);
        }
        if text.len() > MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let salt = random::bytes(&*self.random);
        self.in_turn(move || hash(&argon2, password.expose_secret().as_bytes(), &salt))
            .await
            .map(SecretString::from)
    }

    /// Whether the password is the one behind the PHC string. With `None`, for a user who is not there or has
    /// no password, it takes as long and the answer is no.
    ///
    /// # Errors
    /// Where it could not be checked.
    pub async fn verify(
        &self,
        password: &SecretString,
        phc: Option<&SecretString>,
    ) -> Result<bool, PasswordError> {
        if password.expose_secret().len() > MAX_BYTES {
            return Ok(false);
        }
        let (argon2, password, known) = (self.argon2.clone(), password.clone(), phc.is_some());
        let phc = phc
            .cloned()
            .unwrap_or_else(|| SecretString::from(self.nobody.as_ref()));
        let matches = self
            .in_turn(move || verify(&argon2, password.expose_secret().as_bytes(), phc.expose_secret()))
            .await?;
        Ok(matches && known)
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = self.places.try_acquire().map_err(|_| PasswordError::Busy)?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn
            .map_err(|_| PasswordError::Busy)?
            .map_err(|_| PasswordError::Busy)?;
        // The permit goes with the work: a caller who hangs up does not make room for one more thread.
        let work = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        work.await.map_err(PasswordError::Interrupted)?
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8; SALT_BYTES]) -> Result<String, PasswordError> {
    let hash: PasswordHash = argon2
        .hash_password_with_salt(password, salt)
        .map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

fn verify(argon2: &Argon2<'_>, password: &[u8], phc: &str) -> Result<bool, PasswordError> {
    let hash =
        PasswordHash::new(phc).map_err(|_| PasswordError::Hash(password_hash::Error::EncodingInvalid))?;
    // The parameters are the hash's own, so that older hashes stay good when ours are raised.
    match argon2.verify_password(password, &hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(other) => Err(PasswordError::Hash(other)),
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(Arc::new(SeededRandom::new(3)), 2).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn password_is_recognised_and_another_is_not() {
        let passwords = passwords();
        let phc = passwords.hash(&secret("correct horse")).await.unwrap();
        assert!(phc.expose_secret().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(
            passwords
                .verify(&secret("correct horse"), Some(&phc))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify(&secret("correct horsf"), Some(&phc))
                .await
                .unwrap()
        );
        assert!(!passwords.verify(&secret(""), Some(&phc)).await.unwrap());
    }

    #[tokio::test]
    async fn same_password_hashes_differently_each_time() {
        let passwords = passwords();
        let (one, two) = (
            passwords.hash(&secret("correct horse")).await.unwrap(),
            passwords.hash(&secret("correct horse")).await.unwrap(),
        );
        assert_ne!(one.expose_secret(), two.expose_secret());
    }

    #[tokio::test]
    async fn absent_user_has_no_password_that_fits() {
        let passwords = passwords();
        assert!(!passwords.verify(&secret("correct horse"), None).await.unwrap());
    }

    #[tokio::test]
    async fn length_is_counted_in_characters_below_and_bytes_above() {
        let passwords = passwords();
        assert!(matches!(
            passwords.hash(&secret("elevenchars")).await,
            Err(PasswordError::TooShort)
        ));
        assert!(matches!(
            passwords.hash(&secret("äöüäöüäöüäö")).await,
            Err(PasswordError::TooShort)
        ));
        assert!(passwords.hash(&secret("äöüäöüäöüäöü")).await.is_ok());
        assert!(passwords.hash(&secret(&"x".repeat(1024))).await.is_ok());
        assert!(matches!(
            passwords.hash(&secret(&"x".repeat(1025))).await,
            Err(PasswordError::TooLong)
        ));
        assert!(!passwords.verify(&secret(&"x".repeat(1025)), None).await.unwrap());
    }

    #[tokio::test]
    async fn broken_stored_hash_is_a_fault_and_not_a_wrong_password() {
        let checked = passwords()
            .verify(&secret("correct horse"), Some(&secret("plaintext")))
            .await;
        assert!(matches!(checked, Err(PasswordError::Hash(_))));
    }

    #[tokio::test]
    async fn crowd_is_turned_away_rather_than_queued_without_bound() {
        let passwords = Passwords::new(Arc::new(SeededRandom::new(3)), 1).unwrap();
        let held = passwords.turns.acquire().await.unwrap();
        let password = secret("correct horse");
        let mut crowd: Vec<_> = (0..=WAITING_PER_PERMIT)
            .map(|_| Box::pin(passwords.verify(&password, None)))
            .collect();
        for waiting in &mut crowd {
            assert!(futures::poll!(waiting).is_pending());
        }
        assert!(matches!(
            passwords.verify(&password, None).await,
            Err(PasswordError::Busy)
        ));
        drop(held);
        assert!(!crowd.remove(0).await.unwrap());
    }
}
