//! Reading a sealed secret, right before it is used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hpke::{Deserializable, OpModeR, Serializable};
use secrecy::SecretString;
use thiserror::Error;
use zeroize::Zeroize;

use crate::{Aead, Binding, INFO, Kdf, Kem, KeyId, OpeningKey, Sealed};

type EncapsulatedKey = <Kem as hpke::Kem>::EncappedKey;

/// Why a secret does not open.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It was sealed to a key that is not held here.
    #[error("the secret is sealed to the key {key}, which is not held here")]
    UnknownKey {
        /// The key.
        key: KeyId,
    },
    /// It was altered, or server, role or destination are not those it was sealed for.
    #[error("the secret is void: it was sealed for another destination, or altered")]
    Void,
}

type Ring = HashMap<KeyId, OpeningKey>;

/// Opens what was sealed to the keys of its ring: the current one and those before it. Clones share the ring.
#[derive(Debug, Clone)]
pub struct Opener {
    ring: Arc<ArcSwap<Ring>>,
}

impl Opener {
    /// Opens with any of `keys`.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = OpeningKey>) -> Self {
        Self {
            ring: Arc::new(ArcSwap::from_pointee(ring(keys))),
        }
    }

    /// Opens with any of `keys` from now on, and with no other.
    pub fn hold(&self, keys: impl IntoIterator<Item = OpeningKey>) {
        self.ring.store(Arc::new(ring(keys)));
    }

    /// The ids of the keys held.
    #[must_use]
    pub fn key_ids(&self) -> BTreeSet<KeyId> {
        self.ring.load().keys().cloned().collect()
    }

    /// Opens a secret under its binding.
    ///
    /// # Errors
    /// Where the key is not held, or the secret does not belong here.
    pub fn open(&self, binding: &Binding<'_>, sealed: &Sealed) -> Result<SecretString, OpenError> {
        let ring = self.ring.load();
        let key = ring.get(&sealed.key).ok_or_else(|| OpenError::UnknownKey {
            key: sealed.key.clone(),
        })?;
        let (encapsulated, ciphertext) = sealed
            .bytes
            .split_at_checked(EncapsulatedKey::size())
            .ok_or(OpenError::Void)?;
        let encapsulated = EncapsulatedKey::from_bytes(encapsulated).map_err(|_| OpenError::Void)?;
        let plaintext = hpke::single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            &key.0,
            &encapsulated,
            INFO,
            ciphertext,
            &binding.associated_data(),
        )
        .map_err(|_| OpenError::Void)?;
        String::from_utf8(plaintext)
            .map(SecretString::from)
            .map_err(|error| {
                error.into_bytes().zeroize();
                OpenError::Void
            })
    }
}

fn ring(keys: impl IntoIterator<Item = OpeningKey>) -> Ring {
    keys.into_iter()
        .map(|key| (key.sealing_key().id(), key))
        .collect()
}
