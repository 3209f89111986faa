//! Page sizes and tokens of list methods.

use domain::page::{InvalidPageToken, PageScope, page_size};
use store::page::{Cursor, Page, PageRequest, PageSize};

use crate::error::Error;

/// What page a request wants.
pub(crate) fn request(scope: &PageScope, size: i32, token: &str) -> Result<PageRequest, Error> {
    let size = page_size(size).map_err(|error| Error::invalid("page_size", error))?;
    let after = scope.cursor(token)?;
    // The store's cursors are JSON, which hides a NUL in an escape; no text of the config database has one.
    if after.as_ref().is_some_and(|cursor| cursor.contains(r"\u0000")) {
        return Err(InvalidPageToken.into());
    }
    let after = after.map(Cursor::new);
    Ok(PageRequest {
        size: PageSize::new(size),
        after,
    })
}

/// The token of the page after this one; empty where there is none.
pub(crate) fn next_token<T>(scope: &PageScope, page: &Page<T>) -> String {
    page.next
        .as_ref()
        .map(|cursor| scope.token(cursor.as_str()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_cursor_with_a_nul_is_no_cursor() {
        let scope = PageScope::new("ListServers");
        let token = scope.token(r#"["a\u0000b","c"]"#);
        assert!(matches!(
            request(&scope, 0, &token),
            Err(Error::InvalidPageToken(_))
        ));
        assert!(request(&scope, 0, &scope.token(r#"["a","c"]"#)).is_ok());
    }
}
