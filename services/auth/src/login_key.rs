//! The key that API instances share for what must rest in the config database without being readable there: what a login at a
//! provider goes on with, the provider's refresh tokens, and the keys that sign access tokens.
//!
//! Invariant: a sealed text opens for the purpose and the owner it was sealed for, and for no other.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::random::{self, Random};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const PREFIX: &str = "pgmoor-login-key-1:";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// A text that is no login key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a login key is a line that begins with {PREFIX}")]
pub struct InvalidLoginKey;

/// Names a key: the first 8 bytes of its SHA-256, in hexadecimal. Nobody finds 32 random bytes by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoginKeyId(String);

impl fmt::Display for LoginKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is sealed, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// What a login goes on with: its id and what its collector proves.
    Attempt { id: &'a str, code_challenge: &'a str },
    /// A provider's refresh token: its issuer and subject.
    ProviderToken { issuer: &'a str, subject: &'a str },
    /// A key that signs: its id and, in hexadecimal, its public half.
    SigningKey { id: &'a str, public_key: &'a str },
}

impl Purpose<'_> {
    /// Parts are preceded by their length, so that no two purposes are written alike.
    fn associated_data(self) -> Vec<u8> {
        let parts = match self {
            Self::Attempt { id, code_challenge } => ["login attempt", id, code_challenge],
            Self::ProviderToken { issuer, subject } => ["provider token", issuer, subject],
            Self::SigningKey { id, public_key } => ["signing key", id, public_key],
        };
        let mut data = Vec::new();
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }
}

/// The key. Clones are the same one.
#[derive(Clone)]
pub struct LoginKey(Arc<SecretBox<[u8; KEY_BYTES]>>);

impl fmt::Debug for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginKey").finish_non_exhaustive()
    }
}

impl LoginKey {
    /// A new key.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        Self(Arc::new(SecretBox::new(Box::new(random::bytes(random)))))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Where the text is not a login key.
    pub fn from_text(text: &SecretString) -> Result<Self, InvalidLoginKey> {
        let encoded = text
            .expose_secret()
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(InvalidLoginKey)?;
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| InvalidLoginKey)?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| InvalidLoginKey)?;
        Ok(Self(Arc::new(SecretBox::new(Box::new(bytes)))))
    }

    /// The text form: one line, to be kept in a file that only API instances can read.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        SecretString::from(format!(
            "{PREFIX}{}\n",
            BASE64URL_NOPAD.encode(self.0.expose_secret().as_slice())
        ))
    }

    /// What it is called.
    #[must_use]
    pub fn id(&self) -> LoginKeyId {
        let hash = Sha256::digest(self.0.expose_secret().as_slice());
        LoginKeyId(HEXLOWER.encode(&hash[..8]))
    }

    /// Seals a text. Nothing where the library refuses, which it does for texts of many gigabytes only.
    pub(crate) fn seal(&self, purpose: Purpose<'_>, text: &str, random: &dyn Random) -> Option<Vec<u8>> {
        self.seal_bytes(purpose, text.as_bytes(), random)
    }

    /// The same for bytes.
    pub(crate) fn seal_bytes(
        &self,
        purpose: Purpose<'_>,
        bytes: &[u8],
        random: &dyn Random,
    ) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = random::bytes(random);
        let payload = Payload {
            msg: bytes,
            aad: &purpose.associated_data(),
        };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for this purpose. Nothing where it was not, or with another key.
    pub(crate) fn open(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Option<SecretString> {
        let opened = self.open_bytes(purpose, sealed)?;
        std::str::from_utf8(&opened).ok().map(SecretString::from)
    }

    /// The same for bytes.
    pub(crate) fn open_bytes(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let payload = Payload {
            msg: sealed,
            aad: &purpose.associated_data(),
        };
        let opened = self.cipher().decrypt(&XNonce::from(nonce), payload).ok()?;
        Some(Zeroizing::new(opened))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(*self.0.expose_secret()))
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;

    const HERE: Purpose<'_> = Purpose::Attempt {
        id: "1",
        code_challenge: "c",
    };

    #[test]
    fn sealed_text_opens_with_the_key_and_for_the_purpose_only() {
        let random = SeededRandom::new(3);
        let key = LoginKey::generate(&random);
        let sealed = key.seal(HERE, "s3cret", &random).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
        let read = LoginKey::from_text(&key.to_text()).unwrap();
        assert_eq!(read.open(HERE, &sealed).unwrap().expose_secret(), "s3cret");
        assert!(LoginKey::generate(&random).open(HERE, &sealed).is_none());
        for purpose in [
            Purpose::Attempt {
                id: "2",
                code_challenge: "c",
            },
            Purpose::Attempt {
                id: "1",
                code_challenge: "d",
            },
            Purpose::Attempt {
                id: "1c",
                code_challenge: "",
            },
            Purpose::ProviderToken {
                issuer: "1",
                subject: "c",
            },
            Purpose::SigningKey {
                id: "1",
                public_key: "c",
            },
        ] {
            assert!(key.open(purpose, &sealed).is_none(), "{purpose:?}");
        }
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert!(key.open(HERE, &altered).is_none(), "byte {index}");
        }
        assert!(key.open(HERE, &sealed[..10]).is_none());
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        for text in ["", PREFIX, "pgmoor-opening-key-1:AAAA", "pgmoor-login-key-1:AAAA"] {
            assert!(LoginKey::from_text(&SecretString::from(text)).is_err(), "{text}");
        }
    }
}
