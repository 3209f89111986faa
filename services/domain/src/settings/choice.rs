//! The words that enum settings allow, as types.
//!
//! Invariant: the first word of each is the built-in default, and the definitions list the same words.

macro_rules! choices {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }
    )+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// The words, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The choice for a word of [`Self::WORDS`]; the default for any other.
            #[must_use]
            pub fn from_word(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    _ => Self::default(),
                }
            }

            /// The word for the choice.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }
    )+};
}

choices! {
    /// How a script is sent.
    ScriptMode {
        /// Statement by statement, as psql does.
        #[default]
        Split = "SPLIT",
        /// As one message: one implicit transaction (PostgreSQL manual, 55.2.2.1).
        OneMessage = "ONE_MESSAGE",
    }

    /// What follows a failed statement of a split script.
    OnError {
        /// The rest is not run.
        #[default]
        Stop = "STOP",
        /// The rest is run.
        Continue = "CONTINUE",
    }

    /// Which CSV values stand in quotes.
    CsvQuoting {
        /// Those that need it (RFC 4180, 2.6).
        #[default]
        Minimal = "MINIMAL",
        /// All but numbers and NULL.
        Strings = "STRINGS",
        /// All but NULL.
        All = "ALL",
    }

    /// What stands between CSV values.
    CsvDelimiter {
        /// `,`
        #[default]
        Comma = "COMMA",
        /// `;`
        Semicolon = "SEMICOLON",
        /// A tab.
        Tab = "TAB",
        /// `|`
        Pipe = "PIPE",
    }

    /// What ends a CSV line.
    CsvLineEnding {
        /// Carriage return and line feed (RFC 4180, 2.1).
        #[default]
        Crlf = "CRLF",
        /// Line feed.
        Lf = "LF",
    }
}
