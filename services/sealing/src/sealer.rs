//! Writing a secret down so that its writer cannot read it back.

use domain::random::{self, Random};
use hpke::{OpModeS, Serializable};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{Aead, Binding, INFO, Kdf, Kem, KeyId, SealingKey};

/// A sealed secret, as the config database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key that opens it.
    pub key: KeyId,
    /// The encapsulated key and the ciphertext.
    pub bytes: Vec<u8>,
}

/// A secret could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the sealing key {key} cannot be used")]
pub struct SealError {
    /// The key.
    pub key: KeyId,
}

/// Seals to one public key. It cannot open anything.
#[derive(Debug, Clone)]
pub struct Sealer {
    key: SealingKey,
}

impl Sealer {
    /// Seals to `key`.
    #[must_use]
    pub const fn new(key: SealingKey) -> Self {
        Self { key }
    }

    /// The key it seals to.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key.id()
    }

    /// Seals a secret to its binding.
    ///
    /// # Errors
    /// Where the public key is not a point that can be used.
    pub fn seal(
        &self,
        binding: &Binding<'_>,
        secret: &SecretString,
        random: &dyn Random,
    ) -> Result<Sealed, SealError> {
        let seed = Zeroizing::new(random::bytes::<32>(random));
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
            &OpModeS::Base,
            &self.key.0,
            INFO,
            secret.expose_secret().as_bytes(),
            &binding.associated_data(),
            &mut StdRng::from_seed(*seed),
        )
        .map_err(|_| SealError { key: self.key.id() })?;
        let mut bytes = encapsulated.to_bytes().to_vec();
        bytes.extend_from_slice(&ciphertext);
        Ok(Sealed {
            key: self.key.id(),
            bytes,
        })
    }
}
