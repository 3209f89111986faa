//! GET /oidc/callback/{provider}.

use ::auth::AuthError;
use ::auth::provider_logins::{CallbackEnd, CallbackQuery};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::{HttpPort, confirm, pages};

/// Longest query that is looked at, in bytes.
const MAX_QUERY_BYTES: usize = 16 * 1024;

/// Goes on with a login whose browser came back from a provider.
pub(super) async fn callback(
    State(port): State<HttpPort>,
    Path(provider): Path<String>,
    RawQuery(query): RawQuery,
    request: Parts,
) -> Response {
    let Some(mut query) = read(query.as_deref().unwrap_or_default()) else {
        return pages::failed(
            StatusCode::BAD_REQUEST,
            "This address is not one a provider sends.",
        );
    };
    query.address = port.address(&request);
    match port.provider_logins.callback(&provider, query).await {
        Ok(CallbackEnd::Confirm(confirmation)) => {
            confirm::ask(&confirmation, port.provider_logins.is_external_url_secure())
        }
        Ok(CallbackEnd::Redirect { uri, code }) => pages::back_to_client(&uri, code.expose_secret()),
        Ok(CallbackEnd::Failed(failure)) => pages::failed(
            StatusCode::FORBIDDEN,
            &format!("The login failed: {failure}. Begin it again."),
        ),
        Err(AuthError::LoginThrottled { retry_after }) => pages::throttled(retry_after),
        Err(error) => {
            tracing::warn!(%error, "a login cannot end");
            pages::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "The login cannot end now. Begin it again in a moment.",
            )
        }
    }
}

/// What a provider sends. Nothing where it says something twice (RFC 6749, 3.1).
fn read(query: &str) -> Option<CallbackQuery> {
    if query.len() > MAX_QUERY_BYTES {
        return None;
    }
    let mut read = CallbackQuery::default();
    let mut code = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let field = match name.as_ref() {
            "state" => &mut read.state,
            "code" => &mut code,
            "iss" => &mut read.issuer,
            "error" => &mut read.error,
            _ => continue,
        };
        if field.replace(value.into_owned()).is_some() {
            return None;
        }
    }
    read.code = code.map(SecretString::from);
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_that_comes_twice_is_not_chosen_from() {
        assert!(read("state=a&code=b&iss=https%3A%2F%2Fid&session_state=x").is_some());
        for query in ["state=a&state=a", "code=a&state=b&code=c", "iss=a&iss=b"] {
            assert!(read(query).is_none(), "{query}");
        }
        assert!(read(&"a".repeat(20_000)).is_none());
    }
}
