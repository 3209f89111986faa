//! Where a file is within its owner's root: `dumps/2026/shop.dump`.
//!
//! A path is plain text that is never decoded, normalised or resolved: each part names an entry, the slash between parts is
//! the only character with a meaning. Invariant: no part is `.` or `..`, also not when somebody behind us decodes `%2e`;
//! no part holds a slash, a backslash, a look-alike of either, or a control character. So no path leaves its root.
//!
//! `%` is an ordinary character elsewhere: `100%25.dump` is the name of a file and is not `100%.dump`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Most parts of a path.
pub const MAX_PARTS: usize = 32;
/// Most bytes of a part: what common file systems hold.
pub const MAX_PART_BYTES: usize = 255;

/// Characters that some font, keyboard or file system takes for a slash or a backslash.
const SLASH_LOOKALIKES: [char; 7] = [
    '\u{2044}', '\u{2215}', '\u{2216}', '\u{29f5}', '\u{29f8}', '\u{ff0f}', '\u{ff3c}',
];

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidFilePath {
    /// Nothing, or nothing between two slashes or before the first or after the last one.
    #[error("must be 1 to {MAX_PARTS} parts between slashes, none of them empty")]
    EmptyPart,
    /// Too many parts.
    #[error("must have at most {MAX_PARTS} parts, got {got}")]
    TooManyParts {
        /// How many there are.
        got: usize,
    },
    /// A part is too long.
    #[error("each part must be at most {MAX_PART_BYTES} bytes long, got {got}")]
    PartTooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A part that means a place instead of naming one.
    #[error("no part may be `.` or `..`, in whatever spelling")]
    Relative,
    /// A character that must not occur.
    #[error("must not contain {found:?}")]
    Forbidden {
        /// The first such character.
        found: char,
    },
}

/// The path of a file, or of a folder, within its owner's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// The path with slashes between its parts, none before the first.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts, at least one.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// True where this path lies below `folder`.
    #[must_use]
    pub fn is_below(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(folder.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for FilePath {
    type Err = InvalidFilePath;

    fn from_str(text: &str) -> Result<Self, InvalidFilePath> {
        let got = text.split('/').count();
        if got > MAX_PARTS {
            return Err(InvalidFilePath::TooManyParts { got });
        }
        text.split('/').try_for_each(check_part)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_part(part: &str) -> Result<(), InvalidFilePath> {
    if part.is_empty() {
        return Err(InvalidFilePath::EmptyPart);
    }
    if part.len() > MAX_PART_BYTES {
        return Err(InvalidFilePath::PartTooLong { got: part.len() });
    }
    let forbidden = |c: &char| c.is_control() || *c == '\\' || SLASH_LOOKALIKES.contains(c);
    if let Some(found) = part.chars().find(forbidden) {
        return Err(InvalidFilePath::Forbidden { found });
    }
    let decoded = part.to_ascii_lowercase().replace("%2e", ".");
    if decoded == "." || decoded == ".." {
        return Err(InvalidFilePath::Relative);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<FilePath, InvalidFilePath> {
        text.parse()
    }

    #[test]
    fn ordinary_and_odd_names_are_paths() {
        for text in [
            "a",
            "dumps/2026/shop.dump",
            "...",
            ".profile",
            "a b",
            "Größe",
            "--file=x",
            "host=evil",
            "100%25",
            "a%2fb",
        ] {
            assert_eq!(parse(text).map(|path| path.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn path_that_would_leave_its_root_is_refused() {
        for text in [
            "..",
            ".",
            "../x",
            "a/../../x",
            "a/./b",
            "%2e%2e",
            "%2E%2e/x",
            "a/.%2E/x",
            "%2e",
        ] {
            assert_eq!(parse(text), Err(InvalidFilePath::Relative), "{text}");
        }
        for text in ["", "/", "/abs", "a//b", "a/", "/etc/passwd"] {
            assert_eq!(parse(text), Err(InvalidFilePath::EmptyPart), "{text}");
        }
    }

    #[test]
    fn characters_that_somebody_takes_for_a_separator_or_an_end_are_refused() {
        for (text, found) in [
            ("..\\x", '\\'),
            ("a\0b", '\0'),
            ("a\u{2215}b", '\u{2215}'),
            ("..\u{ff0f}x", '\u{ff0f}'),
            ("a\nb", '\n'),
            ("a\u{85}b", '\u{85}'),
            ("a\u{7f}", '\u{7f}'),
        ] {
            assert_eq!(parse(text), Err(InvalidFilePath::Forbidden { found }), "{text:?}");
        }
    }

    #[test]
    fn parts_are_counted_and_measured() {
        assert!(parse(&vec!["a"; 32].join("/")).is_ok());
        assert_eq!(
            parse(&vec!["a"; 33].join("/")),
            Err(InvalidFilePath::TooManyParts { got: 33 })
        );
        assert!(parse(&"x".repeat(255)).is_ok());
        assert_eq!(
            parse(&"x".repeat(256)),
            Err(InvalidFilePath::PartTooLong { got: 256 })
        );
        assert_eq!(
            parse(&"ü".repeat(128)),
            Err(InvalidFilePath::PartTooLong { got: 256 })
        );
    }

    #[test]
    fn only_what_lies_below_a_folder_is_in_it() {
        let folder = parse("a/b").unwrap();
        assert!(parse("a/b/c").unwrap().is_below(&folder));
        for outside in ["a/b", "a/bc", "a", "x/a/b/c"] {
            assert!(!parse(outside).unwrap().is_below(&folder), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn accepted_path_stays_below_any_root(text in "[a.%2eE/\\\\\u{2215} -]{0,40}") {
            if let Ok(path) = parse(&text) {
                let joined = std::path::Path::new("/root").join(path.as_str());
                let plain = joined.components().skip(2).all(|part| matches!(part, std::path::Component::Normal(_)));
                prop_assert!(plain && joined.starts_with("/root"));
                prop_assert_eq!(joined.components().count(), 2 + path.parts().count());
            }
        }
    }
}
