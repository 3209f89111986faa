//! Tokens of an issuer, checked.
//!
//! Invariant: the algorithm is one of a list without `none` and without shared secrets, whatever the token says.

use std::str::FromStr as _;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJwsSigningAlgorithm};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, IssuerUrl, Nonce,
    SignatureVerificationError,
};
use secrecy::SecretString;
use serde_json::Value;
use time::OffsetDateTime;

use crate::claims::Claims;
use crate::error::ProviderError;
use crate::issuer::{Discovered, Issuer};

/// How far a clock may be off, in seconds.
const SKEW: i64 = 60;
/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What goes on being good for a person's claims at their provider: a refresh token.
#[derive(Debug, Clone)]
pub struct ProviderToken(pub SecretString);

/// What a provider gave for a code, a device or a refresh token: claims that were checked.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What it says of the person.
    pub claims: Claims,
    /// With what it is asked again, if it gave that.
    pub refresh_token: Option<ProviderToken>,
}

/// What a token must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// Who it is for.
    pub(crate) audience: &'a str,
    /// The time it is looked at.
    pub(crate) now: OffsetDateTime,
    /// The nonce of the login it belongs to; none where the flow has none.
    pub(crate) nonce: Option<&'a Nonce>,
    /// The access token that came with it, if one did.
    pub(crate) access_token: Option<&'a AccessToken>,
}

impl Issuer {
    /// Checks a token of this issuer, asking for new keys where it names one we do not know.
    pub(crate) async fn verify(
        &self,
        token: &CoreIdToken,
        expected: Expected<'_>,
    ) -> Result<Claims, ProviderError> {
        let discovered = self.discovered().await?;
        match self.verify_with(&discovered, token, expected) {
            Err(Failure::UnknownKey) => {}
            Err(Failure::Invalid(error)) => return Err(error),
            Ok(claims) => return Ok(claims),
        }
        let unknown = || ProviderError::invalid("its key is not one of the issuer's");
        let newer: Arc<Discovered> = self
            .newer_keys(discovered.keys_read_at)
            .await?
            .ok_or_else(unknown)?;
        self.verify_with(&newer, token, expected)
            .map_err(|failure| match failure {
                Failure::UnknownKey => unknown(),
                Failure::Invalid(error) => error,
            })
    }

    fn verify_with(
        &self,
        discovered: &Discovered,
        token: &CoreIdToken,
        expected: Expected<'_>,
    ) -> Result<Claims, Failure> {
        let invalid = |problem: String| Failure::Invalid(ProviderError::TokenInvalid { problem });
        let issuer = IssuerUrl::new(self.url().to_owned()).map_err(|error| invalid(error.to_string()))?;
        let now = expected.now.unix_timestamp();
        let time = |seconds: i64| chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        let verifier = CoreIdTokenVerifier::new_public_client(
            ClientId::new(expected.audience.to_owned()),
            issuer,
            discovered.keys.clone(),
        )
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || time(now - SKEW))
        .set_issue_time_verifier_fn(move |issued| {
            if issued.timestamp() > now + SKEW {
                Err("it is from the future".to_owned())
            } else {
                Ok(())
            }
        });
        let checked = match expected.nonce {
            Some(nonce) => token.claims(&verifier, nonce),
            None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
        };
        let checked = checked.map_err(|error| match error {
            ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey) => {
                Failure::UnknownKey
            }
            ClaimsVerificationError::SignatureVerification(cause) => invalid(cause.to_string()),
            error => invalid(error.to_string()),
        })?;
        if let (Some(hash), Some(access_token)) = (checked.access_token_hash(), expected.access_token) {
            let ours = token
                .signing_alg()
                .and_then(|algorithm| Ok((algorithm, token.signing_key(&verifier)?)))
                .map_err(|error| invalid(error.to_string()))
                .and_then(|(algorithm, key)| {
                    AccessTokenHash::from_token(access_token, algorithm, key)
                        .map_err(|error| invalid(error.to_string()))
                })?;
            if ours != *hash {
                return Err(invalid("it came with another access token".to_owned()));
            }
        }
        let claims = payload(token).map_err(Failure::Invalid)?;
        let not_before = claims.0.get("nbf").and_then(Value::as_f64);
        if not_before.is_some_and(|time| time > (now + SKEW) as f64) {
            return Err(invalid("it is not valid yet".to_owned()));
        }
        let authorized = claims.top_text("azp");
        if expected.nonce.is_some() && authorized.is_some_and(|party| party != expected.audience) {
            return Err(invalid("it was given to another party (azp)".to_owned()));
        }
        Ok(claims)
    }
}

enum Failure {
    UnknownKey,
    Invalid(ProviderError),
}

/// Reads a token that somebody sent. Nothing of it is believed yet.
pub(crate) fn parse(text: &str) -> Result<CoreIdToken, ProviderError> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(ProviderError::invalid("it is too long"));
    }
    CoreIdToken::from_str(text).map_err(|_| ProviderError::invalid("it is no JSON Web Token"))
}

/// All claims as they stand in the token.
pub(crate) fn payload(token: &CoreIdToken) -> Result<Claims, ProviderError> {
    let text = token.to_string();
    let unreadable = || ProviderError::invalid("its claims cannot be read");
    let payload = text.split('.').nth(1).ok_or_else(unreadable)?;
    let bytes = BASE64URL_NOPAD
        .decode(payload.as_bytes())
        .map_err(|_| unreadable())?;
    let claims: Value = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    claims
        .is_object()
        .then_some(Claims(claims))
        .ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use openidconnect::JsonWebKeySetUrl;
    use serde_json::json;

    use super::*;
    use crate::http::HttpClient;

    const ISSUER: &str = "https://id.example.com";
    const NOW: i64 = 1_800_000_000;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = key().sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
    }

    fn is_believed(token: &str) -> bool {
        let public = BASE64URL_NOPAD.encode(key().verifying_key().as_bytes());
        let keys = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "one", "x": public },
        ] });
        let jwks_uri = JsonWebKeySetUrl::new(format!("{ISSUER}/jwks")).unwrap();
        let discovered = Discovered::of_keys(serde_json::from_value(keys).unwrap(), jwks_uri);
        let issuer = Issuer::new(ISSUER.to_owned(), HttpClient::new(None).unwrap());
        let (nonce, access_token) = (Nonce::new("n".to_owned()), AccessToken::new("a".to_owned()));
        let expected = Expected {
            audience: "pgmoor",
            now: OffsetDateTime::from_unix_timestamp(NOW).unwrap(),
            nonce: Some(&nonce),
            access_token: Some(&access_token),
        };
        parse(token).is_ok_and(|token| issuer.verify_with(&discovered, &token, expected).is_ok())
    }

    #[test]
    fn id_token_of_a_person_is_of_this_login_and_for_us() {
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": "one" });
        let claims = json!({
            "iss": ISSUER, "sub": "ann", "aud": "pgmoor", "iat": NOW, "exp": NOW + 300, "nonce": "n",
        });
        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            token(&header, &claims)
        };
        assert!(is_believed(&token(&header, &claims)));
        assert!(is_believed(&with("azp", json!("pgmoor"))));
        for (name, value) in [
            ("nonce", json!("m")),
            ("nonce", Value::Null),
            ("azp", json!("another")),
            ("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
            ("aud", json!("another")),
            ("aud", json!(["pgmoor", "another"])),
            ("iss", json!("https://id.example.org")),
            ("exp", json!(NOW - 120)),
            ("iat", json!(NOW + 120)),
            ("nbf", json!(NOW + 120)),
        ] {
            assert!(!is_believed(&with(name, value.clone())), "{name} {value}");
        }
        for algorithm in ["none", "HS256", "RS256", "ES256"] {
            let header = json!({ "alg": algorithm, "typ": "JWT", "kid": "one" });
            assert!(!is_believed(&token(&header, &claims)), "{algorithm}");
        }
    }
}
