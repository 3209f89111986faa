//! Login names of pgmoor's users.
//!
//! Invariant: two login names are the same user's when their keys are equal; the key, not the spelling, is
//! unique.

use std::fmt;
use std::str::FromStr;

use crate::name::InvalidName;

/// Longest login name in characters.
pub const MAX_USERNAME_CHARS: usize = 100;

/// A login name: 1 to 100 characters, without white space or control characters, in the spelling its user
/// chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Username(String);

impl Username {
    /// The name as spelt.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is compared: the name without regard to case.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for Username {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if let Some(found) = text
            .chars()
            .find(|char| char.is_whitespace() || char.is_control())
        {
            return Err(InvalidName::Forbidden { found });
        }
        let got = text.chars().count();
        if got > MAX_USERNAME_CHARS {
            return Err(InvalidName::TooLong {
                limit: MAX_USERNAME_CHARS,
                got,
                unit: "characters",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn username_keeps_its_spelling_and_is_compared_without_case() {
        let name: Username = "Ärzte@Example.COM".parse().unwrap();
        assert_eq!(
            (name.as_str(), name.key().as_str()),
            ("Ärzte@Example.COM", "ärzte@example.com")
        );
    }

    #[test]
    fn username_has_no_white_space_and_no_control_characters() {
        for (text, found) in [("a b", ' '), ("a\u{a0}", '\u{a0}'), ("\0", '\0')] {
            assert_eq!(text.parse::<Username>(), Err(InvalidName::Forbidden { found }));
        }
        assert_eq!("".parse::<Username>(), Err(InvalidName::Empty));
        assert!(matches!(
            "x".repeat(101).parse::<Username>(),
            Err(InvalidName::TooLong { got: 101, .. })
        ));
    }
}
