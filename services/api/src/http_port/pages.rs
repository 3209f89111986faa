//! What a browser is shown: static pages, with headers that let them do nothing but answer a question of ours.

use std::time::Duration;

use ::auth::provider_logins::Confirmation;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use secrecy::ExposeSecret as _;

/// Nothing is loaded, run, framed or sent anywhere.
const INERT: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// The same, but for the answer, which goes to where the page came from.
const ASKS: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, INERT),
    // The address of a page may hold a code.
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// Asks whether the person began the login.
pub(super) fn confirm(confirmation: &Confirmation) -> Response {
    let Confirmation {
        confirmation_code,
        username,
        provider,
        client_name,
        address,
        token,
        cookie: _,
    } = confirmation;
    let client = client_name.as_deref().unwrap_or("no name");
    let address = address.as_deref().unwrap_or("an unknown address");
    let body = format!(
        "<p>A program asks to be logged in to pgmoor as <strong id=\"user\">{}</strong>, whom {} vouches for.</p>\
         <p>It calls from <strong id=\"address\">{}</strong> and says of itself: <span id=\"client\">{}</span></p>\
         <p>Did you begin this login yourself, and does your terminal show this code?</p>\
         <p><strong id=\"code\">{}</strong></p>\
         <p>If somebody sent you here, or the codes differ, decline: whoever began the login would be logged in as you.</p>\
         <form method=\"post\" action=\"/oidc/confirm\"><input type=\"hidden\" name=\"token\" value=\"{}\">\
         <button id=\"confirm\" name=\"answer\" value=\"confirm\">The codes are the same: log in</button> \
         <button id=\"decline\" name=\"answer\" value=\"decline\">Decline</button></form>",
        escaped(username),
        escaped(provider),
        escaped(address),
        escaped(client),
        escaped(confirmation_code),
        escaped(token.expose_secret()),
    );
    let mut response = page(StatusCode::OK, "Is this login yours?", &body);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(ASKS));
    response
}

/// The login was confirmed.
pub(super) fn done() -> Response {
    page(
        StatusCode::OK,
        "You are logged in",
        "<p id=\"done\">Your terminal goes on. You can close this window.</p>",
    )
}

/// The login was declined.
pub(super) fn declined() -> Response {
    page(
        StatusCode::OK,
        "Nobody is logged in",
        "<p id=\"declined\">The login was ended. If somebody sent you the address, tell your administrator.</p>",
    )
}

/// The login has ended well, and the browser goes on to the client on its own machine.
pub(super) fn back_to_client(uri: &str, code: &str) -> Response {
    let mut response = page(
        StatusCode::SEE_OTHER,
        "You are logged in",
        "<p>You can close this window.</p>",
    );
    // Both are our own: a checked address on the loopback, and hexadecimal digits.
    if let Ok(location) = HeaderValue::from_str(&format!("{uri}?code={code}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The login failed. `text` is ours.
pub(super) fn failed(status: StatusCode, text: &str) -> Response {
    page(status, "You are not logged in", &format!("<p>{text}</p>"))
}

/// Too many of what was wrong came from where the browser is.
pub(super) fn throttled(retry_after: Duration) -> Response {
    let mut response = failed(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many logins that there are not were asked for from your address. Wait a while, and begin yours again.",
    );
    let seconds = retry_after.as_secs().saturating_add(1);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// There is nothing here.
pub(super) fn not_found() -> Response {
    page(StatusCode::NOT_FOUND, "There is nothing here", "")
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - pgmoor</title></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A text as HTML has it: names come from providers and clients.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Which would turn what follows around, or hide it.
            char if char.is_control() || is_format(char) => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Marks of direction and of no width, by which a name can be made to look like another.
const fn is_format(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[tokio::test]
    async fn what_clients_and_providers_say_of_themselves_is_text_and_nothing_else() {
        let evil = "<script>\"'&\u{202e}</p>".to_owned();
        let response = confirm(&Confirmation {
            confirmation_code: "K7QM-3XDP".to_owned(),
            username: evil.clone(),
            provider: evil.clone(),
            client_name: Some(evil.clone()),
            address: Some(evil),
            token: SecretString::from("t"),
            cookie: SecretString::from("c00kie"),
        });
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"));
        let body = axum::body::to_bytes(response.into_body(), 64 * 1024)
            .await
            .unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(!body.contains("<script") && !body.contains('\u{202e}'), "{body}");
        assert!(body.contains("&lt;script&gt;&quot;&#39;&amp;"), "{body}");
        assert!(body.contains("K7QM-3XDP") && !body.contains("c00kie"), "{body}");
    }
}
