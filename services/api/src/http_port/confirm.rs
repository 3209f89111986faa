//! POST /oidc/confirm: the word of the person whose browser came back.
//!
//! Invariant: it counts from the browser that was asked only. It brings what the page has and what a cookie has, each of them once,
//! and a browser that says it comes from another site is not listened to.

use ::auth::AuthError;
use ::auth::provider_logins::{Confirmation, Decided, Decision};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::{HttpPort, pages};

/// Longest answer that is looked at, in bytes.
pub(super) const MAX_FORM_BYTES: usize = 1024;
/// Characters of a secret: 32 bytes in hexadecimal.
const SECRET_CHARS: usize = 64;
/// Characters of a page's token that its cookie is named with, so that two logins in one browser do not meet. They are no secret
/// to the browser, and too few to be one to others.
const NAMED_BY: usize = 8;
/// How long a cookie is kept: as long as a login may take.
const MAX_AGE_SECONDS: u32 = 600;

/// The page that asks, and the cookie with which it is answered.
pub(super) fn ask(confirmation: &Confirmation, is_secure: bool) -> Response {
    let token = confirmation.token.expose_secret();
    let mut response = pages::confirm(confirmation);
    let cookie = cookie_name(token, is_secure).and_then(|name| {
        let value = confirmation.cookie.expose_secret();
        let secure = if is_secure { "; Secure" } else { "" };
        HeaderValue::from_str(&format!(
            "{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={MAX_AGE_SECONDS}{secure}"
        ))
        .ok()
    });
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Takes the answer.
pub(super) async fn confirm(State(port): State<HttpPort>, request: Parts, body: Bytes) -> Response {
    let headers = &request.headers;
    let is_secure = port.provider_logins.is_external_url_secure();
    let from_elsewhere = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site.as_bytes() != b"same-origin");
    let answer = read(&body).and_then(|(token, decision)| {
        let cookie = cookie(headers, &cookie_name(&token, is_secure)?)?;
        Some((SecretString::from(token), SecretString::from(cookie), decision))
    });
    let Some((token, cookie, decision)) = answer.filter(|_| !from_elsewhere) else {
        return pages::failed(
            StatusCode::BAD_REQUEST,
            "This is no answer of the browser that was asked. Begin the login again.",
        );
    };
    let address = port.address(&request);
    let decided = port
        .provider_logins
        .decide(&token, &cookie, decision, &address)
        .await;
    match decided {
        Ok(Decided::Confirmed) => pages::done(),
        Ok(Decided::Declined) => pages::declined(),
        Ok(Decided::Unknown) => pages::failed(
            StatusCode::FORBIDDEN,
            "No login waits for this answer any more. Begin it again.",
        ),
        Err(AuthError::LoginThrottled { retry_after }) => pages::throttled(retry_after),
        Err(error) => {
            tracing::warn!(%error, "a login cannot be confirmed");
            pages::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "The answer cannot be taken now. Try again in a moment.",
            )
        }
    }
}

/// The page's token and the answer. Nothing where something is said twice.
fn read(body: &[u8]) -> Option<(String, Decision)> {
    let (mut token, mut decision) = (None, None);
    for (name, value) in url::form_urlencoded::parse(body) {
        let twice = match name.as_ref() {
            "token" => token.replace(value.into_owned()).is_some(),
            "answer" => {
                let said = match value.as_ref() {
                    "confirm" => Decision::Confirm,
                    "decline" => Decision::Decline,
                    _ => return None,
                };
                decision.replace(said).is_some()
            }
            _ => false,
        };
        if twice {
            return None;
        }
    }
    Some((token.filter(|token| is_secret(token))?, decision?))
}

/// The cookie of that name. Nothing where there are two: a neighbour's domain may have put one there.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut found = None;
    for header in headers.get_all(COOKIE) {
        for pair in header.to_str().ok()?.split(';') {
            if let Some((other, value)) = pair.trim().split_once('=')
                && other == name
                && found.replace(value.to_owned()).is_some()
            {
                return None;
            }
        }
    }
    found.filter(|value| is_secret(value))
}

/// `__Host-` binds a cookie to this host and to TLS (RFC 6265bis, 4.1.3), and browsers take it with TLS only.
fn cookie_name(token: &str, is_secure: bool) -> Option<String> {
    let prefix = if is_secure { "__Host-" } else { "" };
    Some(format!("{prefix}pgmoor-login-{}", token.get(..NAMED_BY)?))
}

/// Whether we may have made it: in lower case. What is none is not looked for, and not counted.
fn is_secret(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == SECRET_CHARS && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_a_token_and_a_word_each_said_once() {
        let token = "a".repeat(64);
        let good = format!("token={token}&answer=confirm");
        assert_eq!(read(good.as_bytes()), Some((token.clone(), Decision::Confirm)));
        for bad in [
            String::new(),
            format!("token={token}"),
            "answer=confirm".to_owned(),
            format!("token={token}&answer=yes"),
            format!("token={token}&token={token}&answer=confirm"),
            format!("token={token}&answer=decline&answer=confirm"),
            format!("token={}&answer=confirm", "ä".repeat(32)),
            format!("token={token}0&answer=confirm"),
            format!("token={}&answer=confirm", token.to_uppercase()),
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn cookie_is_the_one_of_the_page_and_not_chosen_from_two() {
        let (token, value) = ("ab".repeat(32), "c".repeat(64));
        let name = cookie_name(&token, false).unwrap();
        let with = |text: String| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_str(&text).unwrap());
            cookie(&headers, &name)
        };
        assert_eq!(with(format!("x=y; {name}={value}")), Some(value.clone()));
        assert_eq!(with(format!("{name}={value}; {name}={value}")), None);
        assert_eq!(with(format!("{name}2={value}")), None);
        assert_eq!(with(format!("{name}=short")), None);
        assert!(cookie_name(&token, true).unwrap().starts_with("__Host-"));
    }
}
