//! The keys that sign access tokens: Ed25519.
//!
//! Invariant: the private half is with the API instances, who log people in; a pooler only ever holds the
//! public one.

use std::fmt;

use domain::random::{self, Random};
use ed25519_dalek::VerifyingKey;
use secrecy::{ExposeSecret as _, SecretBox};
use store::signing_keys::NewSigningKey;
use thiserror::Error;
use uuid::Uuid;

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

/// A key pair in the config database whose halves do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the halves of signing key {id} do not belong together")]
pub struct MismatchedKey {
    /// The key.
    pub id: Uuid,
}

/// A key that can sign.
#[derive(Clone)]
pub(crate) struct SigningKey {
    id: KeyId,
    secret: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A new key, to be offered to the config database.
    pub(crate) fn generate(random: &dyn Random) -> NewSigningKey {
        let seed = SecretBox::new(Box::new(random::bytes(random)));
        let public = ed25519_dalek::SigningKey::from_bytes(seed.expose_secret()).verifying_key();
        NewSigningKey {
            id: uuid::Builder::from_random_bytes(random::bytes(random)).into_uuid(),
            private_key: seed,
            public_key: public.to_bytes(),
        }
    }

    /// The key as the config database has it.
    pub(crate) fn read(
        id: Uuid,
        private: &SecretBox<[u8; 32]>,
        public: &[u8; 32],
    ) -> Result<Self, MismatchedKey> {
        let secret = ed25519_dalek::SigningKey::from_bytes(private.expose_secret());
        if secret.verifying_key().as_bytes() != public {
            return Err(MismatchedKey { id });
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

/// A public half as the config database has it, or nothing where the bytes are no point of the curve.
pub(crate) fn read_public(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;

    #[test]
    fn generated_key_can_be_read_back() {
        let new = SigningKey::generate(&SeededRandom::new(1));
        let key = SigningKey::read(new.id, &new.private_key, &new.public_key).unwrap();
        assert_eq!(KeyId::parse(&key.id().to_string()), Some(KeyId(new.id)));
        assert_eq!(read_public(&new.public_key), Some(key.secret().verifying_key()));
    }

    #[test]
    fn halves_of_different_keys_are_refused() {
        let random = SeededRandom::new(1);
        let (one, two) = (SigningKey::generate(&random), SigningKey::generate(&random));
        let mixed = SigningKey::read(one.id, &one.private_key, &two.public_key);
        assert_eq!(mixed.unwrap_err(), MismatchedKey { id: one.id });
    }

    #[test]
    fn weak_public_key_is_refused() {
        // The neutral element: every signature by it verifies under the lax rules.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(read_public(&neutral), None);
    }
}
