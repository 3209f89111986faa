//! Pages of lists: how many entries a page has, and the tokens that lead to the next one.
//!
//! A token is base64url of a version, a hash of the request it belongs to, and a cursor: where the next page
//! begins. Invariant: a token fits only a request with the same arguments (its page size may change). It is
//! bound to the request, not secret and not authenticated: whoever makes one up sees no more than the list
//! shows from another place, because the list is filtered for its caller on every page.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Entries in a page where the request does not say.
pub const DEFAULT_PAGE_SIZE: u32 = 50;
/// Most entries in a page; a greater wish is cut to it.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// Longest token that is looked at.
const MAX_TOKEN_CHARS: usize = 4096;
const VERSION: u8 = 1;
const BINDING_BYTES: usize = 16;

/// A page size below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must not be negative")]
pub struct NegativePageSize;

/// A token that no request with these arguments was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the page token does not belong to this request")]
pub struct InvalidPageToken;

/// How many entries a page has: the wish within the bounds, 0 for the default.
///
/// # Errors
/// Where the wish is negative.
pub fn page_size(wish: i32) -> Result<u32, NegativePageSize> {
    match u32::try_from(wish) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(wish) => Ok(wish.min(MAX_PAGE_SIZE)),
        Err(_) => Err(NegativePageSize),
    }
}

/// The list a token belongs to: its method and every argument but page size and token.
#[derive(Debug, Clone)]
pub struct PageScope(Sha256);

impl PageScope {
    /// A list by the name of its method.
    #[must_use]
    pub fn new(method: &str) -> Self {
        Self(Sha256::new()).with(method)
    }

    /// The same list with one more argument.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        // With its length, so that no two rows of arguments look alike.
        self.0.update((argument.len() as u64).to_be_bytes());
        self.0.update(argument);
        self
    }

    /// The token for the page that begins at `cursor`.
    #[must_use]
    pub fn token(&self, cursor: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.binding());
        bytes.extend_from_slice(cursor.as_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// The cursor of a token; none for the empty token, which means the first page.
    ///
    /// # Errors
    /// Where the token belongs to another request, or is no token at all.
    pub fn cursor(&self, token: &str) -> Result<Option<String>, InvalidPageToken> {
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > MAX_TOKEN_CHARS {
            return Err(InvalidPageToken);
        }
        let bytes = BASE64URL_NOPAD
            .decode(token.as_bytes())
            .map_err(|_| InvalidPageToken)?;
        let (version, rest) = bytes.split_first().ok_or(InvalidPageToken)?;
        let (binding, cursor) = rest.split_at_checked(BINDING_BYTES).ok_or(InvalidPageToken)?;
        if *version != VERSION || binding != self.binding() {
            return Err(InvalidPageToken);
        }
        let cursor = String::from_utf8(cursor.to_vec()).map_err(|_| InvalidPageToken)?;
        // No name of PostgreSQL has one, and its protocol cannot carry it.
        if cursor.contains('\0') {
            return Err(InvalidPageToken);
        }
        Ok(Some(cursor))
    }

    fn binding(&self) -> [u8; BINDING_BYTES] {
        let hash = self.0.clone().finalize();
        let mut binding = [0; BINDING_BYTES];
        binding.copy_from_slice(&hash[..BINDING_BYTES]);
        binding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(page_size(0), Ok(50));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(1000));
        assert_eq!(page_size(-1), Err(NegativePageSize));
    }

    #[test]
    fn token_leads_back_to_its_cursor() {
        let scope = PageScope::new("ListTables").with("servers/1").with("public");
        for cursor in ["", "orders", "Größe 1"] {
            assert_eq!(scope.cursor(&scope.token(cursor)), Ok(Some(cursor.to_owned())));
        }
        assert_eq!(scope.cursor(""), Ok(None));
    }

    #[test]
    fn token_of_another_request_is_refused() {
        let token = PageScope::new("ListTables").with("ab").with("c").token("x");
        for other in [
            PageScope::new("ListTables").with("a").with("bc"),
            PageScope::new("ListTables").with("abc"),
            PageScope::new("ListSchemas").with("ab").with("c"),
        ] {
            assert_eq!(other.cursor(&token), Err(InvalidPageToken));
        }
    }

    #[test]
    fn made_up_tokens_are_refused() {
        let scope = PageScope::new("ListTables");
        assert_eq!(scope.cursor(&scope.token("a\0b")), Err(InvalidPageToken));
        let mut altered = scope.token("abc").into_bytes();
        altered[3] ^= 1;
        for bad in [
            String::from_utf8(altered).unwrap(),
            "x".into(),
            "AQ".into(),
            "Ü".into(),
            "A".repeat(10_000),
        ] {
            assert_eq!(scope.cursor(&bad), Err(InvalidPageToken), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_other_text_is_no_token(text in ".{0,60}") {
            let scope = PageScope::new("ListTables").with("public");
            if !text.is_empty() {
                proptest::prop_assert_eq!(scope.cursor(&text), Err(InvalidPageToken));
            }
        }
    }
}
