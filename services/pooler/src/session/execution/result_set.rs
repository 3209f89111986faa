//! How much of a result set is sent, and what follows when that much was.

use domain::access::GrantLimits;
use rpc::query::v1::OnLimit;

/// Rows the server is asked for at a time where bytes are counted and the request states no size of a page.
const DEFAULT_PAGE: u32 = 1000;

/// The limits of each result set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResultLimit {
    /// Most rows; nothing for all.
    pub(crate) rows: Option<i64>,
    /// Most bytes of values; nothing for all.
    pub(crate) bytes: Option<i64>,
    /// What follows.
    pub(crate) on_limit: OnLimit,
}

impl ResultLimit {
    /// Limits as a request states them: nothing, or 0, for none.
    pub(crate) fn new(rows: Option<i64>, bytes: Option<i64>, on_limit: OnLimit) -> Self {
        Self {
            rows: rows.filter(|rows| *rows > 0),
            bytes: bytes.filter(|bytes| *bytes > 0),
            on_limit,
        }
    }

    /// Keeps it within what a grant allows.
    pub(super) fn narrow(&mut self, limits: &GrantLimits) {
        self.rows = within(self.rows, limits.result_rows);
        self.bytes = within(self.bytes, limits.result_bytes);
    }

    /// True where the server itself is to stop.
    pub(super) fn suspends(self) -> bool {
        self.on_limit == OnLimit::Suspend
    }
}

/// What was asked for, or what is allowed, where that is less. Nothing, or 0, asked for is all.
pub(super) fn within(asked: Option<i64>, allowed: Option<u64>) -> Option<i64> {
    let allowed = allowed.map(|allowed| i64::try_from(allowed).unwrap_or(i64::MAX));
    asked.filter(|asked| *asked > 0).into_iter().chain(allowed).min()
}

/// A result set as far as it was sent.
#[derive(Debug, Default)]
pub(super) struct ResultSet {
    limit: ResultLimit,
    rows: i64,
    bytes: i64,
    /// Rows were left out.
    pub(super) truncated: bool,
}

impl ResultSet {
    pub(super) fn new(limit: ResultLimit) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(super) fn limit(&self) -> ResultLimit {
        self.limit
    }

    /// Whether the next row is to be sent. After one that does not fit none is, or rows would be missing in between.
    pub(super) fn takes(&mut self, value_bytes: usize) -> bool {
        let (rows, bytes) = (
            self.rows + 1,
            self.bytes.saturating_add_unsigned(value_bytes as u64),
        );
        let fits = self.limit.rows.is_none_or(|most| rows <= most)
            && self.limit.bytes.is_none_or(|most| bytes <= most);
        // Rows of a portal that was asked for them are gone from there: all are sent.
        if !fits && !self.limit.suspends() {
            self.truncated = true;
        }
        if !self.truncated {
            (self.rows, self.bytes) = (rows, bytes);
        }
        !self.truncated
    }

    /// True where a row beyond the limit is a failure.
    pub(super) fn has_failed(&self) -> bool {
        self.truncated && self.limit.on_limit == OnLimit::Fail
    }

    /// True where a portal is to be suspended.
    pub(super) fn is_full(&self) -> bool {
        self.limit.rows.is_some_and(|most| self.rows >= most)
            || self.limit.bytes.is_some_and(|most| self.bytes >= most)
    }

    /// Rows to ask a portal for next; 0 for all. `page` is the most where bytes are counted, 0 for our choice.
    pub(super) fn next_page(&self, page: usize) -> u32 {
        const MOST: u32 = i32::MAX.unsigned_abs();
        let rows = self.limit.rows.map(|most| most.saturating_sub(self.rows));
        let rows = rows.map(|rows| u32::try_from(rows).unwrap_or(MOST).min(MOST));
        let page = match (self.limit.bytes, page) {
            (None, _) => None,
            (Some(_), 0) => Some(DEFAULT_PAGE),
            (Some(_), page) => Some(u32::try_from(page).unwrap_or(MOST)),
        };
        rows.into_iter().chain(page).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: i64, bytes: i64, on_limit: OnLimit) -> ResultSet {
        ResultSet::new(ResultLimit::new(Some(rows), Some(bytes), on_limit))
    }

    #[test]
    fn row_that_does_not_fit_is_left_out_and_so_are_all_after_it() {
        let mut set = set(0, 10, OnLimit::Truncate);
        assert_eq!(
            [4, 6, 1, 0].map(|bytes| set.takes(bytes)),
            [true, true, false, false]
        );
        assert!(set.truncated && !set.has_failed());
    }

    #[test]
    fn result_of_just_so_many_rows_is_whole() {
        let mut set = set(2, 0, OnLimit::Fail);
        assert_eq!([9, 9].map(|bytes| set.takes(bytes)), [true, true]);
        assert!(!set.has_failed());
        assert!(!set.takes(0) && set.has_failed());
    }

    #[test]
    fn portal_is_asked_for_what_is_left_and_what_came_is_taken() {
        let mut set = set(5, 100, OnLimit::Suspend);
        assert_eq!(set.next_page(3), 3);
        assert!((0..3).all(|_| set.takes(10)) && !set.is_full());
        assert_eq!((set.next_page(3), set.next_page(0)), (2, 2));
        assert!(set.takes(1000) && set.is_full() && set.takes(1) && !set.truncated);
        let all = ResultSet::new(ResultLimit::new(None, Some(1), OnLimit::Suspend));
        assert_eq!((all.next_page(0), all.next_page(7)), (DEFAULT_PAGE, 7));
        assert_eq!(ResultSet::default().next_page(7), 0);
    }
}
