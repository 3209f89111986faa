//! Text a server sent, kept as the bytes it sent.
//!
//! A database in SQL_ASCII stores and returns any bytes, and messages written before authentication may be in
//! the server's own encoding, so server text is not guaranteed to be UTF-8. [`ServerText`] never loses a byte
//! and never fails; turning it into Rust text is the reader's explicit, lossy step.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// Bytes meant to be read by people: a message, a column name, a command tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServerText(Bytes);

impl ServerText {
    /// Wraps bytes as the server sent them.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes as the server sent them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as the server sent them, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The text when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text, with U+FFFD in place of what is not UTF-8.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for ServerText {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl PartialEq<str> for ServerText {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for ServerText {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Display for ServerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_str_lossy())
    }
}

impl fmt::Debug for ServerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str_lossy(), f)
    }
}
