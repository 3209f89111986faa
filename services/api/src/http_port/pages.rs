//! What a browser is shown: static pages, with headers that let them do nothing.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    // The address of this page holds a code.
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// The login has ended well.
pub(super) fn done(confirmation_code: &str) -> Response {
    page(
        StatusCode::OK,
        "You are logged in",
        &format!(
            "<p>Check that your terminal shows this code:</p><p><strong id=\"code\">{confirmation_code}</strong></p>\
             <p>If it shows another one, or you did not begin this login, run <code>pgmoor logins</code> and end it. \
             You can close this window.</p>"
        ),
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
