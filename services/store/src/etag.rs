//! Etags: what a reader holds to change a row only if nobody else has since.

use std::fmt;

/// An opaque text that changes with every change of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Etag(String);

impl Etag {
    /// An etag as a client sent it. Any text will do: one that was never given matches nothing.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(version: i64) -> Self {
        Self(version.to_string())
    }

    /// True where no etag was given or it is the one of this version.
    pub(crate) fn allows(expected: Option<&Self>, version: i64) -> bool {
        expected.is_none_or(|etag| *etag == Self::of(version))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
