//! Tokens that are nothing but random bits: refresh tokens `pgmr_…` and API tokens `pgma_…`.
//!
//! Invariant: only the SHA-256 of a token is stored, and tokens are found by it alone. So no comparison
//! depends on how much of a token somebody has guessed; and with 256 random bits a slow hash would buy
//! nothing.
//!
//! The prefixes are for people and for scanners that look for secrets in repositories.

use data_encoding::HEXLOWER;
use domain::random::{self, Random};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use store::logins::TokenHash;

const REFRESH_PREFIX: &str = "pgmr_";
const API_PREFIX: &str = "pgma_";
const SECRET_BYTES: usize = 32;

/// A new refresh token and what is kept of it.
pub(crate) fn new_refresh_token(random: &dyn Random) -> (SecretString, TokenHash) {
    new(REFRESH_PREFIX, random)
}

/// A new API token and what is kept of it.
pub(crate) fn new_api_token(random: &dyn Random) -> (SecretString, TokenHash) {
    new(API_PREFIX, random)
}

/// The hash of what should be a refresh token, or nothing where it cannot be one.
pub(crate) fn refresh_token_hash(token: &str) -> Option<TokenHash> {
    read(REFRESH_PREFIX, token)
}

/// Whether a bearer token says of itself that it is an API token.
pub(crate) fn is_api_token(token: &str) -> bool {
    token.starts_with(API_PREFIX)
}

/// The hash of what should be an API token, or nothing where it cannot be one.
pub(crate) fn api_token_hash(token: &str) -> Option<TokenHash> {
    read(API_PREFIX, token)
}

fn new(prefix: &str, random: &dyn Random) -> (SecretString, TokenHash) {
    let token = format!(
        "{prefix}{}",
        HEXLOWER.encode(&random::bytes::<SECRET_BYTES>(random))
    );
    let hash = hash(&token);
    (SecretString::from(token), hash)
}

fn read(prefix: &str, token: &str) -> Option<TokenHash> {
    let secret = token.strip_prefix(prefix)?;
    let hex = secret
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (hex && secret.len() == 2 * SECRET_BYTES).then(|| hash(token))
}

/// The SHA-256 of a token as it was sent.
pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn token_is_found_again_by_its_hash() {
        let random = SeededRandom::new(5);
        let (api, api_hash) = new_api_token(&random);
        let (refresh, refresh_hash) = new_refresh_token(&random);
        assert_eq!(api_token_hash(api.expose_secret()), Some(api_hash));
        assert_eq!(refresh_token_hash(refresh.expose_secret()), Some(refresh_hash));
        assert_ne!(api_hash, new_api_token(&random).1);
    }

    #[test]
    fn tokens_have_one_spelling_and_one_length() {
        let random = SeededRandom::new(5);
        let ((api, _), (refresh, _)) = (new_api_token(&random), new_refresh_token(&random));
        let (api, refresh) = (api.expose_secret(), refresh.expose_secret());
        for wrong in [
            format!("{api}0"),
            api.to_uppercase(),
            api[..60].to_owned(),
            refresh.to_owned(),
            String::new(),
        ] {
            assert_eq!(api_token_hash(&wrong), None, "{wrong}");
        }
        for wrong in [
            format!("{refresh}0"),
            format!("{refresh} "),
            refresh.to_uppercase(),
            api.to_owned(),
        ] {
            assert_eq!(refresh_token_hash(&wrong), None, "{wrong}");
        }
    }
}
