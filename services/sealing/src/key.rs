//! Keys to seal with and keys to open with.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::random::{self, Random};
use hpke::{Deserializable, Kem as _, Serializable};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::Kem;

/// Names a key pair: the first 8 bytes of the public key's SHA-256, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Takes an id as the config database has it.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidKey {
    /// Not a public key.
    #[error("a sealing key is 32 bytes of X25519")]
    Sealing,
    /// Not the text of an opening key.
    #[error("an opening key is a line that begins with {PREFIX}")]
    Opening,
}

/// The public key: seals.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey(pub(crate) <Kem as hpke::Kem>::PublicKey);

impl SealingKey {
    /// Reads the key's 32 bytes.
    ///
    /// # Errors
    /// Where they are not a public key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        <Kem as hpke::Kem>::PublicKey::from_bytes(bytes)
            .map(Self)
            .map_err(|_| InvalidKey::Sealing)
    }

    /// The key's 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    /// The id of the pair.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(HEXLOWER.encode(&Sha256::digest(self.to_bytes())[..8]))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id())
    }
}

const PREFIX: &str = "pgmoor-opening-key-1:";

/// The private key: opens. Held by poolers and workers only.
#[derive(Clone)]
pub struct OpeningKey(pub(crate) <Kem as hpke::Kem>::PrivateKey);

impl OpeningKey {
    /// A new key pair.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        let seed = Zeroizing::new(random::bytes::<32>(random));
        Self(Kem::derive_keypair(&*seed).0)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Where the text is not an opening key.
    pub fn from_text(text: &SecretString) -> Result<Self, InvalidKey> {
        let encoded = text
            .expose_secret()
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(InvalidKey::Opening)?;
        let bytes = Zeroizing::new(
            BASE64URL_NOPAD
                .decode(encoded.as_bytes())
                .map_err(|_| InvalidKey::Opening)?,
        );
        <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes)
            .map(Self)
            .map_err(|_| InvalidKey::Opening)
    }

    /// The text form: one line, to be kept in a file that only poolers and workers can read.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let bytes = Zeroizing::new(self.0.to_bytes().to_vec());
        SecretString::from(format!("{PREFIX}{}\n", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// The public half.
    #[must_use]
    pub fn sealing_key(&self) -> SealingKey {
        SealingKey(Kem::sk_to_pk(&self.0))
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey({})", self.sealing_key().id())
    }
}
