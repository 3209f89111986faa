//! Names that users choose or PostgreSQL gives: checked once, trusted afterwards.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest PostgreSQL identifier in bytes: `NAMEDATALEN - 1` of a standard build.
pub const MAX_IDENTIFIER_BYTES: usize = 63;
/// Longest display name in characters.
pub const MAX_DISPLAY_NAME_CHARS: usize = 200;

/// A text that cannot be a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// Nothing is left to show.
    #[error("must not be empty")]
    Empty,
    /// Too long for its kind.
    #[error("must be at most {limit} {unit} long, got {got}")]
    TooLong {
        /// The longest allowed.
        limit: usize,
        /// What was given.
        got: usize,
        /// What is counted: bytes or characters.
        unit: &'static str,
    },
    /// A character that must not occur.
    #[error("must not contain {found:?}")]
    Forbidden {
        /// The first such character.
        found: char,
    },
}

/// The name of a database, schema, table or role: what a double-quoted PostgreSQL identifier can hold.
///
/// It is never parsed for anything else: `host=evil` and `--file=x` are the names of rather odd databases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(String);

impl Identifier {
    /// The name as PostgreSQL spells it, unquoted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in double quotes, safe to stand in SQL text (PostgreSQL manual, 4.1.1).
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl FromStr for Identifier {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > MAX_IDENTIFIER_BYTES {
            return Err(InvalidName::TooLong {
                limit: MAX_IDENTIFIER_BYTES,
                got: text.len(),
                unit: "bytes",
            });
        }
        if text.contains('\0') {
            return Err(InvalidName::Forbidden { found: '\0' });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What people call a resource: any text without control characters, trimmed, 1 to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DisplayName(String);

impl DisplayName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DisplayName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if let Some(found) = text.chars().find(|char| char.is_control()) {
            return Err(InvalidName::Forbidden { found });
        }
        let got = text.chars().count();
        if got > MAX_DISPLAY_NAME_CHARS {
            return Err(InvalidName::TooLong {
                limit: MAX_DISPLAY_NAME_CHARS,
                got,
                unit: "characters",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_takes_what_postgresql_takes() {
        for name in [
            "postgres",
            "host=evil",
            "--file=x",
            "postgres://evil/x",
            "Größe \"1\"",
        ] {
            assert!(name.parse::<Identifier>().is_ok(), "{name}");
        }
        assert_eq!(
            "a\"b".parse::<Identifier>().map(|name| name.quoted()),
            Ok("\"a\"\"b\"".to_owned())
        );
    }

    #[test]
    fn identifier_refuses_what_postgresql_cannot_hold() {
        assert_eq!("".parse::<Identifier>(), Err(InvalidName::Empty));
        assert_eq!(
            "a\0b".parse::<Identifier>(),
            Err(InvalidName::Forbidden { found: '\0' })
        );
        assert!(matches!(
            "x".repeat(64).parse::<Identifier>(),
            Err(InvalidName::TooLong { got: 64, .. })
        ));
    }

    #[test]
    fn display_name_is_trimmed_and_free_of_control_characters() {
        assert_eq!(
            "  Prod ".parse::<DisplayName>().map(|name| name.to_string()),
            Ok("Prod".to_owned())
        );
        assert_eq!(
            "a\nb".parse::<DisplayName>(),
            Err(InvalidName::Forbidden { found: '\n' })
        );
    }
}
