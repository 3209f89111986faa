//! An issuer: its metadata (OpenID Connect Discovery) and its keys, fetched when they are needed and kept.
//!
//! Invariant: one request at a time is under way for them, and none right after another that failed or found nothing new.
//! Whoever sends tokens with made-up key ids makes us ask no more often than anybody else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use openidconnect::core::CoreJsonWebKeySet;
use openidconnect::{AdditionalProviderMetadata, JsonWebKeySetUrl, ProviderMetadata};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::error::ProviderError;
use crate::http::HttpClient;

/// Metadata and keys older than this are fetched anew before they are used.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// How long they may be used when they cannot be fetched anew.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// After a failure nobody asks for this long: callers are told at once.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// Keys are not fetched more often than this because of keys they lack.
const KEYS_PAUSE: Duration = Duration::from_secs(10);

/// What we read of the metadata beside what OpenID Connect Discovery defines.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Extensions {
    /// RFC 8628.
    pub(crate) device_authorization_endpoint: Option<String>,
    /// RFC 7009.
    pub(crate) revocation_endpoint: Option<String>,
    /// RFC 9207.
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Extensions {}

macro_rules! metadata {
    ($($parameter:ident),+ $(,)?) => {
        /// The metadata of a provider people log in with.
        pub(crate) type Metadata =
            ProviderMetadata<Extensions, $(openidconnect::core::$parameter),+>;
    };
}

metadata!(
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
);

/// What every issuer says of itself, those of workloads too.
#[derive(Deserialize)]
struct Basics {
    issuer: String,
    jwks_uri: String,
}

/// What was fetched.
pub(crate) struct Discovered {
    document: Value,
    jwks_uri: JsonWebKeySetUrl,
    pub(crate) keys: CoreJsonWebKeySet,
    /// When the keys were fetched.
    pub(crate) keys_read_at: Instant,
    read_at: Instant,
}

impl Discovered {
    /// Of an issuer with these keys.
    #[cfg(test)]
    pub(crate) fn of_keys(keys: CoreJsonWebKeySet, jwks_uri: JsonWebKeySetUrl) -> Self {
        let now = Instant::now();
        Self {
            document: Value::Null,
            jwks_uri,
            keys,
            keys_read_at: now,
            read_at: now,
        }
    }

    /// The metadata of a provider people log in with.
    pub(crate) fn metadata(&self, provider: &str) -> Result<Metadata, ProviderError> {
        serde_json::from_value(self.document.clone()).map_err(|error| ProviderError::Unavailable {
            provider: provider.to_owned(),
            problem: format!("its metadata cannot be read: {error}"),
        })
    }
}

#[derive(Debug, Default)]
struct Attempts {
    failed: Option<(Instant, String)>,
    keys: Option<Instant>,
}

/// An issuer of tokens.
pub struct Issuer {
    url: String,
    http: HttpClient,
    current: ArcSwapOption<Discovered>,
    attempts: Mutex<Attempts>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer by its URL, exactly as it writes itself in tokens.
    #[must_use]
    pub fn new(url: String, http: HttpClient) -> Self {
        Self {
            url,
            http,
            current: ArcSwapOption::empty(),
            attempts: Mutex::default(),
        }
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) const fn http(&self) -> &HttpClient {
        &self.http
    }

    pub(crate) fn unavailable(&self, problem: impl fmt::Display) -> ProviderError {
        ProviderError::Unavailable {
            provider: self.url.clone(),
            problem: problem.to_string(),
        }
    }

    /// Metadata and keys.
    pub(crate) async fn discovered(&self) -> Result<Arc<Discovered>, ProviderError> {
        if let Some(current) = self.current(FRESH) {
            return Ok(current);
        }
        let mut attempts = self.attempts.lock().await;
        // Whoever had the lock before may have fetched them, or failed.
        if let Some(current) = self.current(FRESH) {
            return Ok(current);
        }
        let failure = match &attempts.failed {
            Some((at, problem)) if at.elapsed() < FAILURE_PAUSE => problem.clone(),
            _ => match self.fetch().await {
                Ok(discovered) => {
                    let discovered = Arc::new(discovered);
                    attempts.failed = None;
                    attempts.keys = Some(discovered.keys_read_at);
                    self.current.store(Some(Arc::clone(&discovered)));
                    return Ok(discovered);
                }
                Err(problem) => {
                    tracing::warn!(
                        issuer = self.url,
                        problem,
                        "an issuer's metadata cannot be fetched"
                    );
                    attempts.failed = Some((Instant::now(), problem.clone()));
                    problem
                }
            },
        };
        self.current(STALE).ok_or_else(|| self.unavailable(failure))
    }

    /// Keys that may hold one which those read at `seen` lack; nothing where it is too early to ask again.
    pub(crate) async fn newer_keys(&self, seen: Instant) -> Result<Option<Arc<Discovered>>, ProviderError> {
        let mut attempts = self.attempts.lock().await;
        let Some(current) = self.current.load_full() else {
            return Ok(None);
        };
        if current.keys_read_at > seen {
            return Ok(Some(current));
        }
        if attempts.keys.is_some_and(|at| at.elapsed() < KEYS_PAUSE) {
            return Ok(None);
        }
        attempts.keys = Some(Instant::now());
        let keys = CoreJsonWebKeySet::fetch_async(&current.jwks_uri, &self.http).await;
        let keys = keys.map_err(|error| self.unavailable(with_causes(&error)))?;
        tracing::info!(issuer = self.url, "an issuer's keys were fetched anew");
        let discovered = Arc::new(Discovered {
            document: current.document.clone(),
            jwks_uri: current.jwks_uri.clone(),
            keys,
            keys_read_at: Instant::now(),
            read_at: current.read_at,
        });
        self.current.store(Some(Arc::clone(&discovered)));
        Ok(Some(discovered))
    }

    fn current(&self, age: Duration) -> Option<Arc<Discovered>> {
        self.current
            .load_full()
            .filter(|current| current.read_at.elapsed() < age)
    }

    async fn fetch(&self) -> Result<Discovered, String> {
        let url = format!(
            "{}/.well-known/openid-configuration",
            self.url.trim_end_matches('/')
        );
        let request = Request::get(url)
            .header(ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        let response = self.http.send(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("its metadata answers {}", response.status()));
        }
        let document: Value = serde_json::from_slice(response.body())
            .map_err(|error| format!("its metadata cannot be read: {error}"))?;
        let basics: Basics = serde_json::from_value(document.clone())
            .map_err(|error| format!("its metadata cannot be read: {error}"))?;
        if basics.issuer != self.url {
            return Err(format!("its metadata is of another issuer, {:?}", basics.issuer));
        }
        self.check_endpoints(&document)?;
        let jwks_uri = JsonWebKeySetUrl::new(basics.jwks_uri).map_err(|error| error.to_string())?;
        let keys = CoreJsonWebKeySet::fetch_async(&jwks_uri, &self.http)
            .await
            .map_err(|error| with_causes(&error))?;
        let now = Instant::now();
        Ok(Discovered {
            document,
            jwks_uri,
            keys,
            keys_read_at: now,
            read_at: now,
        })
    }

    /// What an issuer with TLS names has TLS as well.
    fn check_endpoints(&self, document: &Value) -> Result<(), String> {
        if !self.url.starts_with("https://") {
            return Ok(());
        }
        for key in [
            "jwks_uri",
            "authorization_endpoint",
            "token_endpoint",
            "userinfo_endpoint",
            "revocation_endpoint",
            "device_authorization_endpoint",
        ] {
            let Some(text) = document.get(key).and_then(Value::as_str) else {
                continue;
            };
            let secure = Url::parse(text).is_ok_and(|url| url.scheme() == "https");
            if !secure {
                return Err(format!("its {key} is not an https:// address"));
            }
        }
        Ok(())
    }
}

/// An error with its causes, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn issuer_with_tls_sends_nobody_anywhere_without() {
        let issuer = |url: &str| Issuer::new(url.to_owned(), HttpClient::new(None).unwrap());
        let (secure, loopback) = (issuer("https://id.example.com"), issuer("http://127.0.0.1:8080"));
        for key in [
            "jwks_uri",
            "authorization_endpoint",
            "token_endpoint",
            "userinfo_endpoint",
            "revocation_endpoint",
            "device_authorization_endpoint",
        ] {
            for address in [
                "http://id.example.com/x",
                "HTTP://id.example.com/x",
                "javascript:x",
                "x",
                "",
            ] {
                let document = json!({ key: address });
                assert!(secure.check_endpoints(&document).is_err(), "{document}");
                assert!(loopback.check_endpoints(&document).is_ok(), "{document}");
            }
            let document = json!({ key: "https://other.example.com/x" });
            assert!(secure.check_endpoints(&document).is_ok(), "{document}");
        }
    }
}
