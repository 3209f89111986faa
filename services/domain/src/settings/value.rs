//! A setting's value, how it is checked and how it is stored.

use std::borrow::Cow;
use std::time::Duration;

use thiserror::Error;

use super::definition::Kind;

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValue {
    /// A yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text, or one of an enum's words.
    Text(Cow<'static, str>),
    /// A length of time.
    Duration(Duration),
}

/// Why a value does not fit its setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidValue {
    /// It is of another type.
    #[error("must be {expected}")]
    WrongType {
        /// The field that must be given instead.
        expected: &'static str,
    },
    /// A number beyond the range.
    #[error("must be between {min} and {max}")]
    IntOutOfRange {
        /// The least allowed.
        min: i64,
        /// The greatest allowed.
        max: i64,
    },
    /// A length of time beyond the range.
    #[error("must be between {} s and {} s", min.as_secs(), max.as_secs())]
    DurationOutOfRange {
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// A text that is too long.
    #[error("must have at most {max} characters")]
    TooLong {
        /// The most characters.
        max: usize,
    },
    /// A text with a character that must not occur.
    #[error("must not contain {found:?}")]
    Forbidden {
        /// The first such character.
        found: char,
    },
    /// Not one of the enum's words.
    #[error("must be one of {}", words.join(", "))]
    UnknownWord {
        /// The words.
        words: &'static [&'static str],
    },
}

impl SettingValue {
    /// A text or a word.
    #[must_use]
    pub const fn text(value: &'static str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }

    /// The value as text: what the config database keeps.
    #[must_use]
    pub fn to_stored(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Text(value) => value.to_string(),
            Self::Duration(value) => format!("{}.{:09}", value.as_secs(), value.subsec_nanos()),
        }
    }

    /// Reads what [`Self::to_stored`] wrote for a setting of this kind; nothing where it is not that.
    #[must_use]
    pub fn from_stored(kind: &Kind, stored: &str) -> Option<Self> {
        let value = match kind {
            Kind::Bool => Self::Bool(stored.parse().ok()?),
            Kind::Int { .. } => Self::Int(stored.parse().ok()?),
            Kind::Text { .. } | Kind::Enum { .. } => Self::Text(Cow::Owned(stored.to_owned())),
            Kind::Duration { .. } => {
                let (seconds, nanos) = stored.split_once('.')?;
                let nanos: u32 = nanos.parse().ok().filter(|nanos| *nanos < 1_000_000_000)?;
                Self::Duration(Duration::new(seconds.parse().ok()?, nanos))
            }
        };
        kind.check(&value).ok().map(|()| value)
    }
}

impl Kind {
    /// Says whether the value fits.
    ///
    /// # Errors
    /// Where it is of another type or beyond the range.
    pub fn check(&self, value: &SettingValue) -> Result<(), InvalidValue> {
        match (self, value) {
            (Self::Bool, SettingValue::Bool(_)) => Ok(()),
            (Self::Int { min, max }, SettingValue::Int(value)) => {
                let fits = (min..=max).contains(&value);
                fits.then_some(())
                    .ok_or(InvalidValue::IntOutOfRange { min: *min, max: *max })
            }
            (Self::Text { max_chars, forbidden }, SettingValue::Text(value)) => {
                if value.chars().count() > *max_chars {
                    return Err(InvalidValue::TooLong { max: *max_chars });
                }
                let found = value
                    .chars()
                    .find(|char| char.is_control() || forbidden.contains(*char));
                found.map_or(Ok(()), |found| Err(InvalidValue::Forbidden { found }))
            }
            (Self::Enum { words }, SettingValue::Text(value)) => {
                let known = words.contains(&value.as_ref());
                known.then_some(()).ok_or(InvalidValue::UnknownWord { words })
            }
            (Self::Duration { min, max }, SettingValue::Duration(value)) => {
                let fits = (min..=max).contains(&value);
                fits.then_some(())
                    .ok_or(InvalidValue::DurationOutOfRange { min: *min, max: *max })
            }
            (Self::Bool, _) => Err(InvalidValue::WrongType {
                expected: "a bool_value",
            }),
            (Self::Int { .. }, _) => Err(InvalidValue::WrongType {
                expected: "an int_value",
            }),
            (Self::Text { .. } | Self::Enum { .. }, _) => Err(InvalidValue::WrongType {
                expected: "a string_value",
            }),
            (Self::Duration { .. }, _) => Err(InvalidValue::WrongType {
                expected: "a duration_value",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DEFINITIONS;

    #[test]
    fn values_survive_storage() {
        for definition in DEFINITIONS {
            let stored = definition.default.to_stored();
            let read = SettingValue::from_stored(&definition.kind, &stored);
            assert_eq!(read.as_ref(), Some(&definition.default), "{}", definition.name);
        }
        let kind = Kind::Duration {
            min: Duration::ZERO,
            max: Duration::MAX,
        };
        let odd = SettingValue::Duration(Duration::new(3, 7));
        assert_eq!(SettingValue::from_stored(&kind, &odd.to_stored()), Some(odd));
    }

    #[test]
    fn stored_text_that_does_not_fit_is_no_value() {
        assert_eq!(
            SettingValue::from_stored(&Kind::Int { min: 0, max: 9 }, "10"),
            None
        );
        assert_eq!(
            SettingValue::from_stored(&Kind::Int { min: 0, max: 9 }, "x"),
            None
        );
        assert_eq!(SettingValue::from_stored(&Kind::Bool, "1"), None);
        let duration = Kind::Duration {
            min: Duration::ZERO,
            max: Duration::MAX,
        };
        for bad in ["", "1", "1.", "-1.0", "1.9999999999"] {
            assert_eq!(SettingValue::from_stored(&duration, bad), None, "{bad}");
        }
    }

    #[test]
    fn values_beyond_the_range_are_refused() {
        let int = Kind::Int { min: 0, max: 9 };
        assert_eq!(int.check(&SettingValue::Int(9)), Ok(()));
        assert_eq!(
            int.check(&SettingValue::Int(10)),
            Err(InvalidValue::IntOutOfRange { min: 0, max: 9 })
        );
        assert_eq!(
            int.check(&SettingValue::text("9")),
            Err(InvalidValue::WrongType {
                expected: "an int_value"
            })
        );
        let text = Kind::Text {
            max_chars: 3,
            forbidden: ",",
        };
        assert_eq!(text.check(&SettingValue::text("ä€b")), Ok(()));
        assert_eq!(
            text.check(&SettingValue::text("abcd")),
            Err(InvalidValue::TooLong { max: 3 })
        );
        assert_eq!(
            text.check(&SettingValue::text("a,b")),
            Err(InvalidValue::Forbidden { found: ',' })
        );
        assert_eq!(
            text.check(&SettingValue::text("a\0")),
            Err(InvalidValue::Forbidden { found: '\0' })
        );
        let words = Kind::Enum { words: &["A", "B"] };
        assert_eq!(words.check(&SettingValue::text("B")), Ok(()));
        assert!(words.check(&SettingValue::text("b")).is_err());
    }
}
