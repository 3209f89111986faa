//! What settings there are.

use std::time::Duration;

use super::choice::{CsvDelimiter, CsvLineEnding, CsvQuoting, OnError, ScriptMode};
use super::value::SettingValue;

/// The type of a setting's value and its bounds, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A yes or no.
    Bool,
    /// A whole number.
    Int {
        /// The least allowed.
        min: i64,
        /// The greatest allowed.
        max: i64,
    },
    /// A text without control characters.
    Text {
        /// The most characters.
        max_chars: usize,
        /// Characters that must not occur.
        forbidden: &'static str,
    },
    /// One of a few words.
    Enum {
        /// The words.
        words: &'static [&'static str],
    },
    /// A length of time.
    Duration {
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
}

/// What a setting is.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, for example `query.row_limit`.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// The built-in default.
    pub default: SettingValue,
    /// What it does, with its unit.
    pub description: &'static str,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest session limit that OpenSession takes too.
const SESSION_LIMIT: Kind = Kind::Duration {
    min: Duration::from_secs(1),
    max: DAY,
};

/// How hard a backup is compressed.
pub static BACKUP_COMPRESSION: Definition = Definition {
    name: "backup.compression",
    kind: Kind::Int { min: 0, max: 9 },
    // What zlib does by itself, and pg_dump with it.
    default: SettingValue::Int(6),
    description: "How hard a backup is compressed, from 0 (not at all) to 9, where the request does not \
                  say.",
};

/// What stands between CSV values.
pub static CSV_DELIMITER: Definition = Definition {
    name: "csv.delimiter",
    kind: Kind::Enum {
        words: CsvDelimiter::WORDS,
    },
    default: SettingValue::text(CsvDelimiter::Comma.word()),
    description: "What stands between the values of a CSV line.",
};

/// Whether CSV begins with the names of the columns.
pub static CSV_HEADER: Definition = Definition {
    name: "csv.header",
    kind: Kind::Bool,
    default: SettingValue::Bool(true),
    description: "Whether CSV begins with a line of the columns' names.",
};

/// What ends a CSV line.
pub static CSV_LINE_ENDING: Definition = Definition {
    name: "csv.line_ending",
    kind: Kind::Enum {
        words: CsvLineEnding::WORDS,
    },
    default: SettingValue::text(CsvLineEnding::Crlf.word()),
    description: "What ends a CSV line: CRLF as RFC 4180 says, or LF.",
};

/// What stands for NULL in CSV.
pub static CSV_NULL_TEXT: Definition = Definition {
    name: "csv.null_text",
    // With any of these it could not stand unquoted, whatever the delimiter.
    kind: Kind::Text {
        max_chars: 100,
        forbidden: "\",;|",
    },
    default: SettingValue::text(""),
    description: "What stands for NULL in CSV, never in quotes; a text of the same letters is quoted, so \
                  that the two can be told apart. Must not contain quotes, delimiters or control \
                  characters.",
};

/// Which CSV values stand in quotes.
pub static CSV_QUOTING: Definition = Definition {
    name: "csv.quoting",
    kind: Kind::Enum {
        words: CsvQuoting::WORDS,
    },
    default: SettingValue::text(CsvQuoting::Minimal.word()),
    description: "Which CSV values stand in quotes: MINIMAL those that need it, STRINGS all but numbers, \
                  ALL every one. NULL never does.",
};

/// Most bytes of a result set.
pub static BYTE_LIMIT: Definition = Definition {
    name: "query.byte_limit",
    kind: Kind::Int {
        min: 0,
        max: 1024 * 1024 * 1024 * 1024,
    },
    // As for rows.
    default: SettingValue::Int(0),
    description: "Most bytes of the values of each result set that are sent, where the request does not say; \
                  0 for all of them. A result that was cut says so.",
};

/// What follows a failed statement.
pub static ON_ERROR: Definition = Definition {
    name: "query.on_error",
    kind: Kind::Enum {
        words: OnError::WORDS,
    },
    default: SettingValue::text(OnError::Stop.word()),
    description: "Whether a split script goes on after a failed statement, where the request does not say.",
};

/// Most rows in one message.
pub static PAGE_SIZE: Definition = Definition {
    name: "query.page_size",
    kind: Kind::Int { min: 1, max: 10_000 },
    default: SettingValue::Int(1000),
    description: "Most rows in one message of a result, where the request does not say. A message ends \
                  earlier when it is large.",
};

/// Most rows of a result set.
pub static ROW_LIMIT: Definition = Definition {
    name: "query.row_limit",
    kind: Kind::Int {
        min: 0,
        max: 10_000_000,
    },
    // pgAdmin's query tool and psql show everything unless told otherwise; results are streamed, so that
    // costs nothing.
    default: SettingValue::Int(0),
    description: "Most rows of each result set that are sent, where the request does not say; 0 for all of \
                  them. A result that was cut says so.",
};

/// How a script is sent.
pub static SCRIPT_MODE: Definition = Definition {
    name: "query.script_mode",
    kind: Kind::Enum {
        words: ScriptMode::WORDS,
    },
    default: SettingValue::text(ScriptMode::Split.word()),
    description: "How a script is sent, where the request does not say: SPLIT statement by statement, \
                  ONE_MESSAGE as one implicit transaction.",
};

/// How long a session may be idle in a transaction.
pub static SESSION_IDLE_IN_TRANSACTION_TIMEOUT: Definition = Definition {
    name: "session.idle_in_transaction_timeout",
    kind: SESSION_LIMIT,
    default: SettingValue::Duration(Duration::from_secs(5 * 60)),
    description: "A session that is idle in a transaction for so long is rolled back and closed, where \
                  OpenSession does not say.",
};

/// How long a session may be idle.
pub static SESSION_IDLE_TIMEOUT: Definition = Definition {
    name: "session.idle_timeout",
    kind: SESSION_LIMIT,
    default: SettingValue::Duration(Duration::from_secs(10 * 60)),
    description: "A session that is not used for so long is closed, where OpenSession does not say.",
};

/// How long a statement may run.
pub static STATEMENT_TIMEOUT: Definition = Definition {
    name: "query.statement_timeout",
    kind: Kind::Duration {
        min: Duration::ZERO,
        max: DAY,
    },
    default: SettingValue::Duration(Duration::ZERO),
    description: "Each statement is cancelled after so long, where the request does not say; zero for \
                  never.",
};

/// Every setting, by name.
pub static DEFINITIONS: [&Definition; 14] = [
    &BACKUP_COMPRESSION,
    &CSV_DELIMITER,
    &CSV_HEADER,
    &CSV_LINE_ENDING,
    &CSV_NULL_TEXT,
    &CSV_QUOTING,
    &BYTE_LIMIT,
    &ON_ERROR,
    &PAGE_SIZE,
    &ROW_LIMIT,
    &SCRIPT_MODE,
    &STATEMENT_TIMEOUT,
    &SESSION_IDLE_IN_TRANSACTION_TIMEOUT,
    &SESSION_IDLE_TIMEOUT,
];

/// The setting of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.into_iter().find(|definition| definition.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_stand_by_name() {
        assert!(DEFINITIONS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn defaults_fit_their_definitions() {
        for definition in DEFINITIONS {
            assert_eq!(
                definition.kind.check(&definition.default),
                Ok(()),
                "{}",
                definition.name
            );
        }
    }

    #[test]
    fn settings_are_found_by_exact_name() {
        assert_eq!(find("query.row_limit"), Some(&ROW_LIMIT));
        assert_eq!(find("Query.Row_Limit"), None);
        assert_eq!(find(&"x".repeat(10_000)), None);
    }
}
