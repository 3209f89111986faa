//! Pages of a listing, by keyset: a page begins after the last row of the one before, so that rows which come
//! and go in between neither repeat nor hide others.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::error::StoreError;

/// Rows in a page when the caller has no wish.
const DEFAULT: u16 = 50;
/// Most rows in a page.
const MAXIMUM: u16 = 1000;

/// How many rows a page has at most: 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u16);

impl PageSize {
    /// The wish of a caller: 0 for the default of 50, and never more than 1000.
    #[must_use]
    pub fn new(wish: u32) -> Self {
        match u16::try_from(wish) {
            Ok(0) => Self(DEFAULT),
            Ok(size) => Self(size.min(MAXIMUM)),
            Err(_) => Self(MAXIMUM),
        }
    }

    /// One more than the page holds: the extra row tells that another page follows.
    pub(crate) fn probe(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

/// Where a page ends. Its text is opaque but not secret: whoever hands it to clients decides how to protect
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// A cursor from the text of one.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of<const N: usize>(parts: [String; N]) -> Self {
        Self(Value::from(parts.to_vec()).to_string())
    }

    pub(crate) fn parts<const N: usize>(&self) -> Result<[String; N], StoreError> {
        let parts: Vec<String> = serde_json::from_str(&self.0).map_err(|_| StoreError::InvalidCursor)?;
        parts.try_into().map_err(|_| StoreError::InvalidCursor)
    }

    /// The cursor of a listing by time and id. Nanoseconds are kept: PostgreSQL's microseconds fit.
    pub(crate) fn of_time_and_id(time: OffsetDateTime, id: Uuid) -> Self {
        Self::of([time.format(&Rfc3339).unwrap_or_default(), id.to_string()])
    }

    pub(crate) fn time_and_id(&self) -> Result<(OffsetDateTime, Uuid), StoreError> {
        let [time, id] = self.parts()?;
        let time = OffsetDateTime::parse(&time, &Rfc3339).map_err(|_| StoreError::InvalidCursor)?;
        let id = Uuid::try_parse(&id).map_err(|_| StoreError::InvalidCursor)?;
        Ok((time, id))
    }
}

/// Which page of a listing is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Its size.
    pub size: PageSize,
    /// Where the page before ended; `None` for the first page.
    pub after: Option<Cursor>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where this page ends, if another one follows.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page of up to `size.probe()` rows.
    pub(crate) fn from_rows(mut items: Vec<T>, size: PageSize, cursor: impl Fn(&T) -> Cursor) -> Self {
        let limit = usize::from(size.0);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_survives_its_text_form() {
        let parts = ["a,\"b\"".to_owned(), String::new()];
        let cursor = Cursor::new(Cursor::of(parts.clone()).as_str());
        assert_eq!(cursor.parts::<2>().unwrap(), parts);
        assert!(matches!(cursor.parts::<1>(), Err(StoreError::InvalidCursor)));
        assert!(matches!(
            Cursor::new("nonsense").parts::<1>(),
            Err(StoreError::InvalidCursor)
        ));
    }

    #[test]
    fn only_a_full_page_with_a_row_beyond_has_a_successor() {
        let cursor = |number: &u32| Cursor::of([number.to_string()]);
        assert_eq!(Page::from_rows(vec![1, 2], PageSize::new(2), cursor).next, None);
        let page = Page::from_rows(vec![1, 2, 3], PageSize::new(2), cursor);
        assert_eq!(
            (page.items, page.next),
            (vec![1, 2], Some(Cursor::of(["2".to_owned()])))
        );
    }
}
