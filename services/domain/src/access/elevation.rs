//! Elevations: a user may write for a while where they may only read, because another one let them.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;

use crate::id::ElevationId;
use crate::name::Identifier;

/// The shortest elevation.
pub const MIN_ELEVATION: Duration = Duration::from_secs(1);
/// The longest that a policy may allow.
pub const MAX_ELEVATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest reason that may be stated for one, in characters.
pub const MAX_REASON_CHARS: usize = 1000;

/// An elevation that was approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elevation {
    /// The elevation.
    pub id: ElevationId,
    /// The databases it is for; empty for all that the user may use.
    pub databases: BTreeSet<Identifier>,
    /// From then on it gives nothing.
    pub expire_time: OffsetDateTime,
}

impl Elevation {
    /// Whether it is for the database; without one, whether it is for all of them.
    pub(super) fn covers(&self, database: Option<&Identifier>) -> bool {
        self.databases.is_empty() || database.is_some_and(|database| self.databases.contains(database))
    }

    /// Whether it gives nothing any more.
    #[must_use]
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.expire_time <= now
    }
}

/// That an elevation counts, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elevated {
    /// The elevation; the last to expire, where there are several.
    pub by: ElevationId,
    /// Until when.
    pub until: OffsetDateTime,
}
