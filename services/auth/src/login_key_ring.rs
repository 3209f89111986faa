//! The login keys of an API instance: the first one seals, all of them open. So the key is changed while everything serves.
//!
//! Invariant: nothing but the first key seals. What one of the others opens is there to be sealed anew.

use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::random::Random;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::login_key::{InvalidLoginKey, LoginKey, LoginKeyId, Purpose};

/// Most keys of a ring: all of them are tried on what opens with none.
const MAX_KEYS: usize = 8;

/// A text that is no ring of login keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidLoginKeys {
    /// A line is no key.
    #[error(transparent)]
    Key(#[from] InvalidLoginKey),
    /// There is no line.
    #[error("there is no login key in it")]
    Empty,
    /// There are too many.
    #[error("there are more than {MAX_KEYS} login keys in it")]
    TooMany,
}

/// The keys. Clones are the same ring.
#[derive(Debug, Clone)]
pub struct LoginKeyRing(Arc<ArcSwap<LoginKeys>>);

/// The keys as they stand in a file.
#[derive(Debug, Clone)]
pub struct LoginKeys {
    first: LoginKey,
    others: Vec<LoginKey>,
}

/// What to do with something that is sealed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resealed {
    /// Nothing: the first key opens it.
    Current,
    /// It was sealed with another key of the ring, and with the first one now.
    Anew(Vec<u8>),
    /// No key opens it.
    Void,
}

impl From<LoginKey> for LoginKeys {
    fn from(first: LoginKey) -> Self {
        let others = Vec::new();
        Self { first, others }
    }
}

impl From<LoginKeys> for LoginKeyRing {
    fn from(keys: LoginKeys) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys)))
    }
}

impl From<LoginKey> for LoginKeyRing {
    fn from(key: LoginKey) -> Self {
        LoginKeys::from(key).into()
    }
}

impl LoginKeys {
    /// Reads a key a line.
    ///
    /// # Errors
    /// Where a line is no key, or there are none or too many.
    pub fn from_text(text: &SecretString) -> Result<Self, InvalidLoginKeys> {
        let mut lines = text.expose_secret().split_whitespace();
        let first = lines.next().ok_or(InvalidLoginKeys::Empty)?;
        let read = |line: &str| LoginKey::from_text(&SecretString::from(line));
        let first = read(first)?;
        let others = lines
            .map(read)
            .take(MAX_KEYS)
            .collect::<Result<Vec<_>, InvalidLoginKey>>()?;
        if others.len() >= MAX_KEYS {
            return Err(InvalidLoginKeys::TooMany);
        }
        Ok(Self { first, others })
    }

    /// What the keys are called, the one that seals first.
    #[must_use]
    pub fn ids(&self) -> Vec<LoginKeyId> {
        self.all().map(LoginKey::id).collect()
    }

    fn all(&self) -> impl Iterator<Item = &LoginKey> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl LoginKeyRing {
    /// Takes these keys in place of those it has.
    pub fn hold(&self, keys: LoginKeys) {
        self.0.store(Arc::new(keys));
    }

    /// What the keys are called, the one that seals first.
    #[must_use]
    pub fn ids(&self) -> Vec<LoginKeyId> {
        self.0.load().ids()
    }

    /// As [`LoginKey::seal`], with the first key.
    pub(crate) fn seal(&self, purpose: Purpose<'_>, text: &str, random: &dyn Random) -> Option<Vec<u8>> {
        self.0.load().first.seal(purpose, text, random)
    }

    /// As [`LoginKey::seal_bytes`], with the first key.
    pub(crate) fn seal_bytes(
        &self,
        purpose: Purpose<'_>,
        bytes: &[u8],
        random: &dyn Random,
    ) -> Option<Vec<u8>> {
        self.0.load().first.seal_bytes(purpose, bytes, random)
    }

    /// As [`LoginKey::open`], with whichever key does.
    pub(crate) fn open(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Option<SecretString> {
        self.0.load().all().find_map(|key| key.open(purpose, sealed))
    }

    /// As [`LoginKey::open_bytes`], with whichever key does.
    pub(crate) fn open_bytes(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.0
            .load()
            .all()
            .find_map(|key| key.open_bytes(purpose, sealed))
    }

    /// Seals with the first key what another one opens.
    pub(crate) fn reseal(&self, purpose: Purpose<'_>, sealed: &[u8], random: &dyn Random) -> Resealed {
        let keys = self.0.load();
        if keys.first.open_bytes(purpose, sealed).is_some() {
            return Resealed::Current;
        }
        let opened = keys.others.iter().find_map(|key| key.open_bytes(purpose, sealed));
        let anew = opened.and_then(|opened| keys.first.seal_bytes(purpose, &opened, random));
        anew.map_or(Resealed::Void, Resealed::Anew)
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;

    const HERE: Purpose<'_> = Purpose::ProviderToken {
        issuer: "i",
        subject: "s",
    };

    fn keys(of: &[&LoginKey]) -> LoginKeys {
        let text: String = of
            .iter()
            .map(|key| key.to_text().expose_secret().to_owned())
            .collect();
        LoginKeys::from_text(&SecretString::from(text)).unwrap()
    }

    #[test]
    fn first_key_seals_and_every_key_opens() {
        let random = SeededRandom::new(1);
        let (old, new) = (LoginKey::generate(&random), LoginKey::generate(&random));
        let ring = LoginKeyRing::from(keys(&[&old, &new]));
        assert_eq!(ring.ids(), [old.id(), new.id()]);
        let sealed = ring.seal(HERE, "s3cret", &random).unwrap();
        assert!(old.open(HERE, &sealed).is_some() && new.open(HERE, &sealed).is_none());
        assert_eq!(ring.reseal(HERE, &sealed, &random), Resealed::Current);

        // A clone of before has the keys of now.
        let clone = ring.clone();
        ring.hold(keys(&[&new, &old]));
        assert_eq!(clone.open(HERE, &sealed).unwrap().expose_secret(), "s3cret");
        let Resealed::Anew(anew) = clone.reseal(HERE, &sealed, &random) else {
            panic!("it is sealed with the other key")
        };
        assert_eq!(new.open(HERE, &anew).unwrap().expose_secret(), "s3cret");
        ring.hold(keys(&[&new]));
        assert!(clone.open(HERE, &sealed).is_none());
        assert_eq!(clone.reseal(HERE, &sealed, &random), Resealed::Void);
        assert!(clone.open(HERE, &anew).is_some());
    }

    #[test]
    fn ring_has_a_key_a_line_and_says_where_none_is() {
        let read = |text: &str| LoginKeys::from_text(&SecretString::from(text)).map(|keys| keys.ids().len());
        let random = SeededRandom::new(1);
        let line = || LoginKey::generate(&random).to_text().expose_secret().to_owned();
        assert_eq!(read(&format!("\n{}\n  {}\n", line(), line())), Ok(2));
        assert_eq!(read(" \n"), Err(InvalidLoginKeys::Empty));
        let broken = format!("{}pgmoor-login-key-1:tooshort", line());
        assert_eq!(read(&broken), Err(InvalidLoginKeys::Key(InvalidLoginKey)));
        let lines = |count: usize| (0..count).map(|_| line()).collect::<String>();
        assert_eq!(read(&lines(MAX_KEYS)), Ok(MAX_KEYS));
        assert_eq!(read(&lines(MAX_KEYS + 1)), Err(InvalidLoginKeys::TooMany));
    }
}
