//! Access tokens: what they say and how it is signed. Compact JWS (RFC 7515) with Ed25519 (RFC 8037), and
//! nothing else.
//!
//! Invariant: no claim is read before the signature holds, and which key and algorithm are used is decided
//! here, not by the token: the header must be exactly one of ours.
//!
//! A token also says who its user was when it was made. That is not what decides while the user's record can
//! be read: see [`crate::TokenVerifier`].

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use domain::access::PermissionSet;
use domain::id::{LoginId, UserId};
use domain::name::DisplayName;
use domain::username::Username;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::error::AuthError;
use crate::signing_key::{KeyId, SigningKey};
use crate::standing::UserState;

/// How far the clocks of two instances may be apart.
pub(crate) const SKEW: Duration = Duration::seconds(30);

/// Explicit typing (RFC 8725, 3.11): nothing else that is signed may pass for an access token.
const TYPE: &str = "at+jwt";
const ALGORITHM: &str = "EdDSA";
/// Longest id of a provider, in bytes.
const MAX_PROVIDER_BYTES: usize = 40;
const ISSUER: &str = "pgmoor";
const AUDIENCE: &str = "pgmoor";

/// What an access token says, after its signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessToken {
    pub(crate) user: UserId,
    pub(crate) login: LoginId,
    pub(crate) issued: OffsetDateTime,
    pub(crate) expires: OffsetDateTime,
    /// The provider that the login was begun with.
    pub(crate) provider: Option<String>,
    /// The user as of when the token was made; `None` in a token of a version that did not say.
    pub(crate) stated: Option<Arc<UserState>>,
}

/// Unknown members are refused: `crit`, `jwk` and `jku` among them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

/// Unknown members are let through, so that a newer version may say more. Times are NumericDates (RFC 7519,
/// 2).
#[derive(Debug, Serialize, Deserialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    lid: &'a str,
    /// With milliseconds: it is compared with the moment a user was revoked, who may be back within the
    /// second.
    iat: f64,
    exp: i64,
    /// The provider's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    idp: Option<&'a str>,
    /// All of it or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<Who>,
}

/// User name, display name, and whether an administrator. A list without names of its members, so that with
/// the longest names a token is still within [`crate::MAX_TOKEN_BYTES`].
#[derive(Debug, Serialize, Deserialize)]
struct Who(String, String, bool);

/// A token whose signature was not checked yet. It tells only which key to check it with.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    pub(crate) key: KeyId,
    signed: &'a str,
    payload: &'a str,
    signature: Signature,
}

impl AccessToken {
    /// The token as text.
    pub(crate) fn sign(&self, key: &SigningKey) -> Result<String, serde_json::Error> {
        let kid = key.id().to_string();
        let header = Header {
            alg: ALGORITHM,
            typ: TYPE,
            kid: &kid,
        };
        let claims = Claims {
            iss: ISSUER,
            aud: AUDIENCE,
            sub: &self.user.to_string(),
            lid: &self.login.to_string(),
            iat: numeric_date(self.issued),
            exp: self.expires.unix_timestamp(),
            idp: self.provider.as_deref(),
            who: self.stated.as_deref().map(Who::of),
        };
        let header = BASE64URL_NOPAD.encode(&serde_json::to_vec(&header)?);
        let claims = BASE64URL_NOPAD.encode(&serde_json::to_vec(&claims)?);
        let signed = format!("{header}.{claims}");
        let signature = BASE64URL_NOPAD.encode(&key.secret().sign(signed.as_bytes()).to_bytes());
        Ok(format!("{signed}.{signature}"))
    }

    /// Whether the token is good at this moment, as far as time goes.
    pub(crate) fn check_time(&self, now: OffsetDateTime) -> Result<(), AuthError> {
        if now >= self.expires + SKEW {
            return Err(AuthError::TokenExpired);
        }
        if self.issued > now + SKEW {
            return Err(AuthError::TokenInvalid);
        }
        Ok(())
    }
}

impl<'a> Unverified<'a> {
    /// Takes the token apart.
    pub(crate) fn read(token: &'a str) -> Result<Self, AuthError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::TokenInvalid)?;
        let (header, payload) = signed.split_once('.').ok_or(AuthError::TokenInvalid)?;
        let header = decode(header)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| AuthError::TokenInvalid)?;
        if header.alg != ALGORITHM || header.typ != TYPE {
            return Err(AuthError::TokenInvalid);
        }
        let key = KeyId::parse(header.kid).ok_or(AuthError::TokenInvalid)?;
        let signature = Signature::from_slice(&decode(signature)?).map_err(|_| AuthError::TokenInvalid)?;
        Ok(Self {
            key,
            signed,
            payload,
            signature,
        })
    }

    /// What the token says, if the key signed it. Whether it is still good is for
    /// [`AccessToken::check_time`].
    pub(crate) fn verify(&self, key: &VerifyingKey) -> Result<AccessToken, AuthError> {
        key.verify_strict(self.signed.as_bytes(), &self.signature)
            .map_err(|_| AuthError::TokenInvalid)?;
        let claims = decode(self.payload)?;
        let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| AuthError::TokenInvalid)?;
        if claims.iss != ISSUER || claims.aud != AUDIENCE {
            return Err(AuthError::TokenInvalid);
        }
        let issued = read_numeric_date(claims.iat).ok_or(AuthError::TokenInvalid)?;
        let expires = OffsetDateTime::from_unix_timestamp(claims.exp).map_err(|_| AuthError::TokenInvalid)?;
        if expires.checked_add(SKEW).is_none() || issued > expires {
            return Err(AuthError::TokenInvalid);
        }
        if claims
            .idp
            .is_some_and(|id| id.is_empty() || id.len() > MAX_PROVIDER_BYTES)
        {
            return Err(AuthError::TokenInvalid);
        }
        let user = claims.sub.parse().map_err(|_| AuthError::TokenInvalid)?;
        let stated = claims.who.map(|who| who.read(user)).transpose()?;
        Ok(AccessToken {
            user,
            login: claims.lid.parse().map_err(|_| AuthError::TokenInvalid)?,
            issued,
            expires,
            provider: claims.idp.map(str::to_owned),
            stated: stated.map(Arc::new),
        })
    }
}

impl Who {
    fn of(user: &UserState) -> Self {
        Self(
            user.username.clone(),
            user.display_name.clone(),
            user.administrator,
        )
    }

    fn read(self, user: UserId) -> Result<UserState, AuthError> {
        let Self(username, display_name, administrator) = self;
        let username: Username = username.parse().map_err(|_| AuthError::TokenInvalid)?;
        let display_name: DisplayName = display_name.parse().map_err(|_| AuthError::TokenInvalid)?;
        Ok(UserState {
            user,
            username: username.as_str().to_owned(),
            display_name: display_name.as_str().to_owned(),
            administrator,
            // No token is made for a user who is.
            disabled: false,
            vouch_expires: None,
            // A token says nothing of roles: they are what the config database says.
            everywhere: PermissionSet::NONE,
        })
    }
}

/// Whole milliseconds, rounded down: a token must not seem younger than it is.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this millennium fit into 53 bits"
)]
fn numeric_date(time: OffsetDateTime) -> f64 {
    let millis = time.unix_timestamp() * 1000 + i64::from(time.millisecond());
    millis as f64 / 1000.0
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
fn read_numeric_date(seconds: f64) -> Option<OffsetDateTime> {
    // Not for NaN either. The end is that of year 9999.
    if !(0.0..253_402_300_799.0).contains(&seconds) {
        return None;
    }
    let millis = (seconds * 1000.0).round() as i128;
    OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).ok()
}

/// Strict base64url: no padding, no other alphabet, no stray bits, so that a token has one spelling.
fn decode(text: &str) -> Result<Vec<u8>, AuthError> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| AuthError::TokenInvalid)
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05.678 UTC);

    fn key_from(seed: u64) -> SigningKey {
        let new = SigningKey::generate(&SeededRandom::new(seed), None).unwrap();
        SigningKey::read(new.id, &new.private_key, &new.public_key, None).unwrap()
    }

    fn key() -> SigningKey {
        key_from(1)
    }

    fn token() -> AccessToken {
        let random = SeededRandom::new(2);
        let (user, login) = (UserId::generate(&random), LoginId::generate(&random));
        AccessToken {
            user,
            login,
            issued: NOW,
            expires: datetime!(2026-01-02 03:14:05 UTC),
            provider: Some("corp".to_owned()),
            stated: Some(Arc::new(stated(user, "alice", "Alice \"Å\" \\ Smith"))),
        }
    }

    fn stated(user: UserId, username: &str, display_name: &str) -> UserState {
        UserState {
            user,
            username: username.to_owned(),
            display_name: display_name.to_owned(),
            administrator: false,
            disabled: false,
            vouch_expires: None,
            everywhere: PermissionSet::NONE,
        }
    }

    fn open(text: &str) -> Result<AccessToken, AuthError> {
        Unverified::read(text)?.verify(&key().secret().verifying_key())
    }

    /// A token with any header and claims, properly signed.
    fn forge(header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = key().secret().sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key().id().to_string()})
    }

    fn claims() -> Value {
        let AccessToken {
            user,
            login,
            issued,
            expires,
            ..
        } = token();
        json!({
            "iss": "pgmoor", "aud": "pgmoor", "sub": user.to_string(), "lid": login.to_string(),
            "iat": numeric_date(issued), "exp": expires.unix_timestamp(), "idp": "corp",
            "who": ["alice", "Alice \"Å\" \\ Smith", false],
        })
    }

    fn with(mut value: Value, member: &str, other: Value) -> Value {
        value[member] = other;
        value
    }

    #[test]
    fn token_survives_its_text_form() {
        assert_eq!(open(&token().sign(&key()).unwrap()), Ok(token()));
        assert_eq!(open(&forge(&header(), &claims())), Ok(token()));
    }

    #[test]
    fn token_that_does_not_say_who_its_user_is_is_read() {
        let mut old = claims();
        old.as_object_mut().unwrap().remove("who");
        let read = open(&forge(&header(), &old)).unwrap();
        assert_eq!(
            read,
            AccessToken {
                stated: None,
                ..token()
            }
        );
        assert_eq!(open(&read.sign(&key()).unwrap()), Ok(read));
    }

    #[test]
    fn token_with_the_longest_names_is_not_too_long() {
        for widest in ["\u{10ffff}", "\"", "\\"] {
            let mut token = token();
            token.provider = Some("x".repeat(MAX_PROVIDER_BYTES));
            let (username, display_name) = (widest.repeat(100), widest.repeat(200));
            token.stated = Some(Arc::new(stated(token.user, &username, &display_name)));
            let text = token.sign(&key()).unwrap();
            assert!(text.len() <= crate::MAX_TOKEN_BYTES, "{}", text.len());
            assert_eq!(open(&text), Ok(token));
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let (text, public) = (token().sign(&key()).unwrap(), key().secret().verifying_key());
        let others = ["A", "B", "-", "=", "."];
        for at in 0..text.len() {
            let mut tampered = text.clone();
            let other = others[at % others.len()];
            tampered.replace_range(at..=at, if text[at..].starts_with(other) { "C" } else { other });
            let read = Unverified::read(&tampered).and_then(|unverified| unverified.verify(&public));
            assert_eq!(read, Err(AuthError::TokenInvalid), "{at}");
        }
    }

    #[test]
    fn only_our_exact_header_is_accepted() {
        for header in [
            with(header(), "alg", json!("none")),
            with(header(), "alg", json!("HS256")),
            with(header(), "alg", json!("eddsa")),
            with(header(), "typ", json!("JWT")),
            with(header(), "kid", json!("")),
            with(header(), "kid", json!("../../etc/passwd")),
            with(header(), "crit", json!(["exp"])),
            with(header(), "jwk", json!({"kty": "OKP"})),
            json!({"alg": "EdDSA", "kid": key().id().to_string()}),
            json!({"alg": "EdDSA", "typ": "at+jwt"}),
            json!([]),
        ] {
            assert_eq!(
                open(&forge(&header, &claims())),
                Err(AuthError::TokenInvalid),
                "{header}"
            );
        }
    }

    #[test]
    fn unsigned_token_is_refused() {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let unsigned = with(header(), "alg", json!("none"));
        assert_eq!(
            open(&format!("{}.{}.", encode(&unsigned), encode(&claims()))),
            Err(AuthError::TokenInvalid)
        );
        assert_eq!(
            open(&format!("{}.{}.", encode(&header()), encode(&claims()))),
            Err(AuthError::TokenInvalid)
        );
    }

    #[test]
    fn only_claims_of_ours_are_accepted() {
        for claims in [
            with(claims(), "iss", json!("other")),
            with(claims(), "aud", json!("other")),
            with(claims(), "aud", json!(["pgmoor"])),
            with(claims(), "sub", json!("root")),
            with(claims(), "lid", json!(null)),
            with(claims(), "iat", json!(-1)),
            with(claims(), "iat", json!(1e300)),
            with(claims(), "exp", json!(i64::MAX)),
            with(claims(), "exp", json!(0)),
            with(claims(), "exp", json!("tomorrow")),
            with(claims(), "idp", json!("")),
            with(claims(), "idp", json!("x".repeat(41))),
            with(claims(), "idp", json!(7)),
            with(claims(), "who", json!([])),
            with(claims(), "who", json!(["alice", "Alice"])),
            with(claims(), "who", json!(["alice", "Alice", true, true])),
            with(claims(), "who", json!(["alice", "Alice", "true"])),
            with(claims(), "who", json!(["", "Alice", true])),
            with(claims(), "who", json!(["alice", " ", true])),
            with(claims(), "who", json!(["al ice", "Alice", true])),
            with(claims(), "who", json!(["alice", "Ali\nce", true])),
            with(claims(), "who", json!(["x".repeat(101), "Alice", true])),
            with(claims(), "who", json!(["alice", "x".repeat(201), true])),
            json!({}),
        ] {
            assert_eq!(
                open(&forge(&header(), &claims)),
                Err(AuthError::TokenInvalid),
                "{claims}"
            );
        }
    }

    #[test]
    fn key_of_somebody_else_is_refused() {
        let foreign = key_from(9);
        let text = token().sign(&foreign).unwrap();
        let unverified = Unverified::read(&text).unwrap();
        assert_eq!(unverified.key, foreign.id());
        assert_eq!(
            unverified.verify(&key().secret().verifying_key()),
            Err(AuthError::TokenInvalid)
        );
    }

    #[test]
    fn time_is_checked_with_half_a_minute_of_grace() {
        let token = token();
        assert_eq!(token.check_time(NOW), Ok(()));
        assert_eq!(token.check_time(NOW - SKEW), Ok(()));
        assert_eq!(
            token.check_time(NOW - SKEW - Duration::SECOND),
            Err(AuthError::TokenInvalid)
        );
        assert_eq!(token.check_time(token.expires + SKEW - Duration::SECOND), Ok(()));
        assert_eq!(
            token.check_time(token.expires + SKEW),
            Err(AuthError::TokenExpired)
        );
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "a.b.c.d",
            "\u{0}",
            "ä.ö.ü",
            &".".repeat(2000),
        ] {
            assert_eq!(open(garbage), Err(AuthError::TokenInvalid), "{garbage}");
        }
    }
}
