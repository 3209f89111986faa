//! The bearer token of a call, as it stands in the metadata (RFC 6750).
//!
//! Invariant: a token that is not one short line of visible ASCII goes no further than this file.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::AuthError;

/// Longest token that is looked at, in bytes. Ours are shorter than a third of it, and with the
/// longest names of users and of a provider still within it.
pub const MAX_TOKEN_BYTES: usize = 2560;

const SCHEME: &str = "bearer";

/// The token a call came with. It is in the request's extensions, for a handler that passes it on to the
/// pooler.
#[derive(Debug, Clone)]
pub struct Bearer(SecretString);

impl Bearer {
    /// The token, for `authorization: Bearer <token>` of a call on behalf of the same caller.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The token itself.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        &self.0
    }

    /// Takes the token out of the metadata. It is not left there, so that nothing downstream can log it.
    pub(crate) fn take(headers: &mut HeaderMap) -> Result<Self, AuthError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let token = match (values.next(), values.next()) {
            (None, _) => Err(AuthError::CredentialsMissing),
            (Some(value), None) => parse(value.as_bytes()),
            (Some(_), Some(_)) => Err(AuthError::TokenInvalid),
        };
        headers.remove(AUTHORIZATION);
        token
    }
}

impl From<SecretString> for Bearer {
    fn from(token: SecretString) -> Self {
        Self(token)
    }
}

fn parse(value: &[u8]) -> Result<Bearer, AuthError> {
    if value.len() > SCHEME.len() + 1 + MAX_TOKEN_BYTES {
        return Err(AuthError::TokenInvalid);
    }
    let value = std::str::from_utf8(value).map_err(|_| AuthError::TokenInvalid)?;
    let Some((scheme, token)) = value.split_once(' ') else {
        return Err(AuthError::TokenInvalid);
    };
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        // Basic and the like: credentials of a kind that is not ours.
        return Err(AuthError::CredentialsMissing);
    }
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthError::TokenInvalid);
    }
    Ok(Bearer(SecretString::from(token)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn take(values: &[&[u8]]) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        let taken = Bearer::take(&mut headers);
        assert!(!headers.contains_key(AUTHORIZATION));
        taken.map(|bearer| bearer.expose().to_owned())
    }

    #[test]
    fn scheme_is_read_in_any_case() {
        assert_eq!(take(&[b"Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(take(&[b"bearer abc"]), Ok("abc".to_owned()));
    }

    #[test]
    fn call_without_a_bearer_token_has_no_credentials() {
        assert_eq!(take(&[]), Err(AuthError::CredentialsMissing));
        assert_eq!(take(&[b"Basic YTpi"]), Err(AuthError::CredentialsMissing));
    }

    #[test]
    fn hostile_metadata_is_refused() {
        let long = [b"Bearer ".as_slice(), &[b'a'; 10_000]].concat();
        let spaces = [b"Bearer ".as_slice(), b"a b"].concat();
        for values in [
            [b"Bearer a".as_slice(), b"Bearer b"].as_slice(),
            &[b"Bearer a", b"Bearer a"],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Bearer  a"],
            &[b"Bearer \xff"],
            &[b"Bearer \xc3\xa4"],
            &[spaces.as_slice()],
            &[long.as_slice()],
        ] {
            assert_eq!(take(values), Err(AuthError::TokenInvalid));
        }
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", Bearer::from(SecretString::from("pgma_1"))).contains("pgma_1"));
    }
}
