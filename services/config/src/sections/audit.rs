//! `[audit]`: the audit trail.

use std::time::Duration;

use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What of a statement's text is kept beside its fingerprint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatementText {
    /// Nothing.
    #[default]
    Fingerprint,
    /// Its form, without constants.
    Normalized,
    /// All of it.
    Full,
}

/// What follows when records find no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Calls that must be recorded are refused.
    Refuse,
    /// Calls go on, and the records are counted.
    #[default]
    Count,
}

/// Keys of `[audit]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// What of a statement's text is kept: `fingerprint` (nothing), `normalized` (without constants) or `full`. Default
    /// `fingerprint`.
    pub statement_text: StatementText,
    /// What follows when records find no room: `refuse` calls that must be recorded, or `count`. Default `count`.
    pub when_full: WhenFull,
    /// Records a process keeps until the config database has them. 1 to 1,000,000. Default 10,000.
    #[serde(deserialize_with = "values::number")]
    pub buffer_records: u64,
    /// How often records are written. 50 ms to 1 min. Default 1 s.
    #[serde(deserialize_with = "values::duration")]
    pub flush_interval: Duration,
    /// With `when_full` `refuse`: how old a record may become that the config database does not take, before calls are refused,
    /// and so what a crash may lose. From twice `flush_interval` to 1 h. Default 10 s.
    #[serde(deserialize_with = "values::duration")]
    pub loss_window: Duration,
    /// How long records are kept. At least 1 day. Default 365 days.
    #[serde(deserialize_with = "values::duration")]
    pub retention: Duration,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            statement_text: StatementText::default(),
            when_full: WhenFull::default(),
            buffer_records: 10_000,
            flush_interval: Duration::from_secs(1),
            loss_window: Duration::from_secs(10),
            retention: 365 * DAY,
        }
    }
}

impl Audit {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1..=1_000_000).contains(&self.buffer_records) {
            problems.push(Problem::invalid("audit.buffer_records", "must be 1 to 1000000"));
        }
        if !(Duration::from_millis(50)..=Duration::from_secs(60)).contains(&self.flush_interval) {
            problems.push(Problem::invalid("audit.flush_interval", "must be 50ms to 1min"));
        }
        // Sooner, and calls were refused while records wait their turn.
        if self.when_full == WhenFull::Refuse
            && !(2 * self.flush_interval..=Duration::from_secs(60 * 60)).contains(&self.loss_window)
        {
            problems.push(Problem::invalid(
                "audit.loss_window",
                "must be from twice audit.flush_interval to 1h",
            ));
        }
        if self.retention < DAY {
            problems.push(Problem::invalid("audit.retention", "must be at least 1day"));
        }
        problems
    }
}
