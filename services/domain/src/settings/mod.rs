//! Settings: what can be chosen, what was chosen, and which choice is in force.
//!
//! A setting's value comes from the nearest layer that has one: the user's own, then the administrator's
//! defaults, then the built-in default. Invariant: a [`Layer`] holds values that fit their [`Definition`] and
//! no others, so whoever reads [`Settings`] need not check them again.
//!
//! Deliberately absent: any setting that nothing reads.

mod choice;
mod definition;
mod layer;
mod value;

use std::sync::Arc;
use std::time::Duration;

pub use choice::{CsvDelimiter, CsvLineEnding, CsvQuoting, OnError, ScriptMode};
pub use definition::{
    BACKUP_COMPRESSION, BYTE_LIMIT, CSV_DELIMITER, CSV_HEADER, CSV_LINE_ENDING, CSV_NULL_TEXT, CSV_QUOTING,
    DEFINITIONS, Definition, Kind, ON_ERROR, PAGE_SIZE, ROW_LIMIT, SCRIPT_MODE,
    SESSION_IDLE_IN_TRANSACTION_TIMEOUT, SESSION_IDLE_TIMEOUT, STATEMENT_TIMEOUT, find,
};
pub use layer::{Choice, Layer};
pub use value::{InvalidValue, SettingValue};

use crate::csv::CsvFormat;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The built-in default.
    BuiltIn,
    /// The administrator's default.
    Defaults,
    /// The user's own choice.
    User,
}

/// A setting as it is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce<'a> {
    /// What it is.
    pub definition: &'static Definition,
    /// Its value.
    pub value: &'a SettingValue,
    /// The layer the value comes from.
    pub source: Source,
    /// The revision of the last change in that layer; 0 for a built-in default.
    pub revision: i64,
}

/// The layers as one user sees them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    defaults: Arc<Layer>,
    user: Arc<Layer>,
}

impl Settings {
    /// The administrator's defaults beneath a user's own choices.
    #[must_use]
    pub fn new(defaults: Arc<Layer>, user: Arc<Layer>) -> Self {
        Self { defaults, user }
    }

    /// The same defaults beneath another user's choices.
    #[must_use]
    pub fn with_user(self, user: Arc<Layer>) -> Self {
        Self { user, ..self }
    }

    /// The layers that hold choices.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        [self.defaults.as_ref(), self.user.as_ref()].into_iter()
    }

    /// The setting as it is in force.
    #[must_use]
    pub fn in_force(&self, definition: &'static Definition) -> InForce<'_> {
        let user = self
            .user
            .chosen(definition)
            .map(|(value, revision)| (value, revision, Source::User));
        let defaults = || {
            self.defaults
                .chosen(definition)
                .map(|(value, revision)| (value, revision, Source::Defaults))
        };
        let (value, revision, source) =
            user.or_else(defaults)
                .unwrap_or((&definition.default, 0, Source::BuiltIn));
        InForce {
            definition,
            value,
            source,
            revision,
        }
    }

    /// Every setting as it is in force, by name.
    pub fn iter(&self) -> impl Iterator<Item = InForce<'_>> {
        DEFINITIONS.iter().map(|definition| self.in_force(definition))
    }

    /// Most rows of a result set that are sent; none for all of them.
    #[must_use]
    pub fn row_limit(&self) -> Option<u64> {
        u64::try_from(self.int(&ROW_LIMIT))
            .ok()
            .filter(|limit| *limit > 0)
    }

    /// Most bytes of the values of a result set that are sent; none for all of them.
    #[must_use]
    pub fn byte_limit(&self) -> Option<u64> {
        u64::try_from(self.int(&BYTE_LIMIT))
            .ok()
            .filter(|limit| *limit > 0)
    }

    /// Most rows in one message.
    #[must_use]
    pub fn page_size(&self) -> i32 {
        i32::try_from(self.int(&PAGE_SIZE)).unwrap_or(i32::MAX)
    }

    /// After how long a statement is cancelled; none for never.
    #[must_use]
    pub fn statement_timeout(&self) -> Option<Duration> {
        Some(self.duration(&STATEMENT_TIMEOUT)).filter(|limit| !limit.is_zero())
    }

    /// How a script is sent.
    #[must_use]
    pub fn script_mode(&self) -> ScriptMode {
        ScriptMode::from_word(self.text(&SCRIPT_MODE))
    }

    /// What follows a failed statement.
    #[must_use]
    pub fn on_error(&self) -> OnError {
        OnError::from_word(self.text(&ON_ERROR))
    }

    /// How results are written as CSV.
    #[must_use]
    pub fn csv_format(&self) -> CsvFormat {
        CsvFormat {
            delimiter: CsvDelimiter::from_word(self.text(&CSV_DELIMITER)),
            line_ending: CsvLineEnding::from_word(self.text(&CSV_LINE_ENDING)),
            quoting: CsvQuoting::from_word(self.text(&CSV_QUOTING)),
            null_text: self.text(&CSV_NULL_TEXT).to_owned(),
            header: self.bool(&CSV_HEADER),
        }
    }

    /// How hard a backup is compressed, 0 (not at all) to 9.
    #[must_use]
    pub fn backup_compression(&self) -> u8 {
        u8::try_from(self.int(&BACKUP_COMPRESSION)).unwrap_or(9)
    }

    /// After how long without use a session is closed.
    #[must_use]
    pub fn session_idle_timeout(&self) -> Duration {
        self.duration(&SESSION_IDLE_TIMEOUT)
    }

    /// After how long idle in a transaction a session is rolled back and closed.
    #[must_use]
    pub fn session_idle_in_transaction_timeout(&self) -> Duration {
        self.duration(&SESSION_IDLE_IN_TRANSACTION_TIMEOUT)
    }

    // The last arm of each is never taken: a layer and a definition hold values of the definition's kind
    // only.

    fn bool(&self, definition: &'static Definition) -> bool {
        matches!(self.in_force(definition).value, SettingValue::Bool(true))
    }

    fn int(&self, definition: &'static Definition) -> i64 {
        match self.in_force(definition).value {
            SettingValue::Int(value) => *value,
            _ => 0,
        }
    }

    fn text(&self, definition: &'static Definition) -> &str {
        match self.in_force(definition).value {
            SettingValue::Text(value) => value,
            _ => "",
        }
    }

    fn duration(&self, definition: &'static Definition) -> Duration {
        match self.in_force(definition).value {
            SettingValue::Duration(value) => *value,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(choices: &[(&str, SettingValue)]) -> Arc<Layer> {
        let mut layer = Layer::default();
        for (revision, (name, value)) in (1_i64..).zip(choices) {
            layer
                .choose(find(name).unwrap(), value.clone(), revision)
                .unwrap();
        }
        Arc::new(layer)
    }

    #[test]
    fn nearest_layer_wins() {
        let defaults = layer(&[
            ("query.row_limit", SettingValue::Int(7)),
            ("query.page_size", SettingValue::Int(20)),
        ]);
        let user = layer(&[("query.row_limit", SettingValue::Int(3))]);
        let settings = Settings::new(defaults, user);
        assert_eq!(settings.row_limit(), Some(3));
        assert_eq!(settings.page_size(), 20);
        assert_eq!(settings.in_force(&PAGE_SIZE).source, Source::Defaults);
        assert_eq!(settings.in_force(&PAGE_SIZE).revision, 2);
        assert_eq!(settings.in_force(&CSV_HEADER).source, Source::BuiltIn);
    }

    #[test]
    fn a_reset_setting_shows_the_next_layer() {
        let mut user = Layer::default();
        user.choose(&ROW_LIMIT, SettingValue::Int(3), 5).unwrap();
        user.reset(&ROW_LIMIT, 6);
        let settings = Settings::new(
            layer(&[("query.row_limit", SettingValue::Int(9))]),
            Arc::new(user),
        );
        assert_eq!(settings.row_limit(), Some(9));
    }

    #[test]
    fn zero_means_no_limit() {
        let none = Settings::default();
        assert_eq!((none.row_limit(), none.statement_timeout()), (None, None));
    }

    #[test]
    fn every_accessor_reads_its_setting() {
        let chosen = Settings::new(
            Arc::default(),
            layer(&[
                ("backup.compression", SettingValue::Int(1)),
                ("csv.delimiter", SettingValue::text("TAB")),
                ("csv.header", SettingValue::Bool(false)),
                ("csv.line_ending", SettingValue::text("LF")),
                ("csv.null_text", SettingValue::text("NULL")),
                ("csv.quoting", SettingValue::text("ALL")),
                ("query.byte_limit", SettingValue::Int(5)),
                ("query.on_error", SettingValue::text("CONTINUE")),
                ("query.page_size", SettingValue::Int(2)),
                ("query.row_limit", SettingValue::Int(3)),
                ("query.script_mode", SettingValue::text("ONE_MESSAGE")),
                (
                    "query.statement_timeout",
                    SettingValue::Duration(Duration::from_secs(4)),
                ),
                (
                    "session.idle_in_transaction_timeout",
                    SettingValue::Duration(Duration::from_secs(60)),
                ),
                (
                    "session.idle_timeout",
                    SettingValue::Duration(Duration::from_secs(120)),
                ),
            ]),
        );
        assert!(
            chosen.iter().all(|setting| setting.source == Source::User),
            "a setting is missing above"
        );
        assert_eq!(
            chosen.csv_format(),
            CsvFormat {
                delimiter: CsvDelimiter::Tab,
                line_ending: CsvLineEnding::Lf,
                quoting: CsvQuoting::All,
                null_text: "NULL".to_owned(),
                header: false,
            }
        );
        assert_eq!(
            (chosen.on_error(), chosen.script_mode()),
            (OnError::Continue, ScriptMode::OneMessage)
        );
        assert_eq!(
            (
                chosen.row_limit(),
                chosen.byte_limit(),
                chosen.page_size(),
                chosen.backup_compression()
            ),
            (Some(3), Some(5), 2, 1)
        );
        assert_eq!(chosen.statement_timeout(), Some(Duration::from_secs(4)));
        assert_eq!(chosen.session_idle_timeout(), Duration::from_secs(120));
        assert_eq!(
            chosen.session_idle_in_transaction_timeout(),
            Duration::from_secs(60)
        );
    }
}
