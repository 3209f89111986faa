//! A private key as it rests in the config database.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretBox};

/// Bytes of an Ed25519 private key (RFC 8032: the seed).
const CLEAR_BYTES: usize = 32;
/// Bytes of one that is sealed: the nonce of XChaCha20-Poly1305, the key, the tag.
const SEALED_BYTES: usize = 24 + CLEAR_BYTES + 16;

/// A private key as it rests in the config database. Its length tells which it is.
pub enum PrivateKey {
    /// In clear: made where there was no login key, or by a version that did not seal.
    Clear(SecretBox<[u8; CLEAR_BYTES]>),
    /// Sealed with the login key, which the config database does not have.
    Sealed(Vec<u8>),
}

impl PrivateKey {
    pub(super) fn read(bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() == SEALED_BYTES {
            return Some(Self::Sealed(bytes));
        }
        let clear: [u8; CLEAR_BYTES] = bytes.try_into().ok()?;
        Some(Self::Clear(SecretBox::new(Box::new(clear))))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Clear(key) => key.expose_secret().as_slice(),
            Self::Sealed(sealed) => sealed,
        }
    }

    /// Whether it is of use to nobody who only reads the config database.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() { "Sealed" } else { "Clear" })
    }
}
