//! Which history of which cluster a transaction is part of: only there does its id mean it.
//!
//! A connection to a primary stays in one history for as long as it stands, since a crash ends it: so asking when it is made
//! is enough.

use crate::facts::text;

/// A cluster's history from one crash or promotion to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    /// `pg_control_system()`.
    pub(crate) system_identifier: i64,
    /// The timeline of the server, which a promotion changes.
    pub(crate) timeline: u32,
    /// When its statistics were reset, in microseconds since 1970. A crash does that, and after it the server may give ids again
    /// that no record had reached the disk of.
    pub(crate) stats_reset: i64,
}

/// The history as a row: nothing on a standby, which writes none of its own.
pub(crate) const HISTORY: &str = "SELECT c.system_identifier, \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
        ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
    (pg_catalog.date_part('epoch', pg_catalog.pg_stat_get_bgwriter_stat_reset_time()) \
        OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 \
    FROM pg_catalog.pg_control_system() AS c";

impl History {
    /// Reads a row of [`HISTORY`].
    pub(crate) fn read(row: &[String]) -> Option<Self> {
        Some(Self {
            system_identifier: text(row, 0).parse().ok()?,
            timeline: u32::from_str_radix(text(row, 1), 16).ok()?,
            stats_reset: text(row, 2).parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standby_and_a_server_that_talks_nonsense_have_no_history() {
        let row = |timeline: &str| ["7", timeline, "1500000"].map(str::to_owned);
        let history = History {
            system_identifier: 7,
            timeline: 16,
            stats_reset: 1_500_000,
        };
        assert_eq!(History::read(&row("00000010")), Some(history));
        for nonsense in ["", "xyz", "-1", "100000000"] {
            assert_eq!(History::read(&row(nonsense)), None, "{nonsense}");
        }
        assert_eq!(History::read(&[]), None);
    }
}
