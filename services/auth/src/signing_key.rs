//! The keys that sign access tokens: Ed25519.
//!
//! Invariant: the private half is with the API instances, who log people in; a pooler only ever holds the
//! public one. Where there is a login key, what rests in the config database is sealed with it.

use std::fmt;

use data_encoding::HEXLOWER;
use domain::random::{self, Random};
use ed25519_dalek::VerifyingKey;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretBox};
use store::signing_keys::{NewSigningKey, PrivateKey};
use thiserror::Error;
use uuid::Uuid;

use crate::login_key::Purpose;
use crate::login_key_ring::LoginKeyRing;

/// The name of a key, in the header of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(Uuid);

impl KeyId {
    pub(crate) const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// A name as a token states it, in its one spelling; nothing where it cannot be one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a key pair of the config database cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnusableKey {
    /// Its halves are of two keys.
    #[error("the halves of signing key {id} do not belong together")]
    Mismatched {
        /// The key.
        id: Uuid,
    },
    /// It is sealed with a login key that is not among ours, or we have none.
    #[error(
        "the login key does not open signing key {id}: have all API instances the same api.login_key_file?"
    )]
    Sealed {
        /// The key.
        id: Uuid,
    },
    /// It could not be sealed.
    #[error("signing key {id} cannot be sealed")]
    Unsealable {
        /// The key.
        id: Uuid,
    },
}

/// A key that can sign.
#[derive(Clone)]
pub(crate) struct SigningKey {
    id: KeyId,
    secret: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A new key, to be offered to the config database: sealed, where there is a login key.
    pub(crate) fn generate(
        random: &dyn Random,
        login_key: Option<&LoginKeyRing>,
    ) -> Result<NewSigningKey, UnusableKey> {
        let seed = SecretBox::new(Box::new(random::bytes::<32>(random)));
        let public_key = ed25519_dalek::SigningKey::from_bytes(seed.expose_secret())
            .verifying_key()
            .to_bytes();
        let id = uuid::Builder::from_random_bytes(random::bytes(random)).into_uuid();
        let private_key = match login_key {
            Some(key) => {
                let sealed = with_purpose(id, &public_key, |purpose| {
                    key.seal_bytes(purpose, seed.expose_secret(), random)
                });
                PrivateKey::Sealed(sealed.ok_or(UnusableKey::Unsealable { id })?)
            }
            None => PrivateKey::Clear(seed),
        };
        Ok(NewSigningKey {
            id,
            private_key,
            public_key,
        })
    }

    /// The key as the config database has it.
    pub(crate) fn read(
        id: Uuid,
        private: &PrivateKey,
        public: &[u8; 32],
        login_key: Option<&LoginKeyRing>,
    ) -> Result<Self, UnusableKey> {
        let secret = match private {
            PrivateKey::Clear(seed) => ed25519_dalek::SigningKey::from_bytes(seed.expose_secret()),
            PrivateKey::Sealed(sealed) => {
                let opened = login_key
                    .and_then(|key| with_purpose(id, public, |purpose| key.open_bytes(purpose, sealed)));
                let opened = opened.ok_or(UnusableKey::Sealed { id })?;
                let seed: Result<[u8; 32], _> = opened.as_slice().try_into();
                let seed = Zeroizing::new(seed.map_err(|_| UnusableKey::Sealed { id })?);
                ed25519_dalek::SigningKey::from_bytes(&seed)
            }
        };
        if secret.verifying_key().as_bytes() != public {
            return Err(UnusableKey::Mismatched { id });
        }
        Ok(Self {
            id: KeyId(id),
            secret,
        })
    }

    pub(crate) const fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) const fn secret(&self) -> &ed25519_dalek::SigningKey {
        &self.secret
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A sealed key opens under its own name and beside its own public half, and in no other row.
fn with_purpose<T>(id: Uuid, public: &[u8; 32], act: impl FnOnce(Purpose<'_>) -> T) -> T {
    act(Purpose::SigningKey {
        id: &id.to_string(),
        public_key: &HEXLOWER.encode(public),
    })
}

/// A public half as the config database has it, or nothing where the bytes are no point of the curve.
pub(crate) fn read_public(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;
    use crate::login_key::LoginKey;

    #[test]
    fn generated_key_can_be_read_back() {
        let new = SigningKey::generate(&SeededRandom::new(1), None).unwrap();
        let key = SigningKey::read(new.id, &new.private_key, &new.public_key, None).unwrap();
        assert_eq!(KeyId::parse(&key.id().to_string()), Some(KeyId(new.id)));
        assert_eq!(read_public(&new.public_key), Some(key.secret().verifying_key()));
    }

    #[test]
    fn halves_of_different_keys_are_refused() {
        let random = SeededRandom::new(1);
        let make = || SigningKey::generate(&random, None).unwrap();
        let (one, two) = (make(), make());
        let mixed = SigningKey::read(one.id, &one.private_key, &two.public_key, None);
        assert_eq!(mixed.unwrap_err(), UnusableKey::Mismatched { id: one.id });
    }

    #[test]
    fn sealed_key_is_read_with_the_login_key_it_was_sealed_with_and_in_its_own_row() {
        let random = SeededRandom::new(1);
        let login_key = LoginKeyRing::from(LoginKey::generate(&random));
        let make = || SigningKey::generate(&random, Some(&login_key)).unwrap();
        let (one, two) = (make(), make());
        assert!(one.private_key.is_sealed());
        let read = SigningKey::read(one.id, &one.private_key, &one.public_key, Some(&login_key)).unwrap();
        assert_eq!(read_public(&one.public_key), Some(read.secret().verifying_key()));
        let other = LoginKeyRing::from(LoginKey::generate(&random));
        for (id, public, login_key) in [
            (one.id, &one.public_key, None),
            (one.id, &one.public_key, Some(&other)),
            (two.id, &one.public_key, Some(&login_key)),
            (one.id, &two.public_key, Some(&login_key)),
        ] {
            let refused = SigningKey::read(id, &one.private_key, public, login_key);
            assert_eq!(refused.unwrap_err(), UnusableKey::Sealed { id });
        }
    }

    #[test]
    fn weak_public_key_is_refused() {
        // The neutral element: every signature by it verifies under the lax rules.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(read_public(&neutral), None);
    }
}
