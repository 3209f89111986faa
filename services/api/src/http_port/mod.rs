//! The HTTP port: where a provider sends the browser back, and what others check our tokens with. Apart from the gRPC port,
//! since balancers treat the two differently.
//!
//! Invariant: no page repeats anything of the request, what clients and providers say is shown as text, and no address leads
//! anywhere but to the port on the loopback that the login was begun with.

mod brief;
mod callback;
mod confirm;
mod connections;
mod pages;

use std::sync::Arc;
use std::time::Duration;

use ::auth::{ProviderLogins, published_keys};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use store::Store;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

use self::brief::Brief;
use self::connections::Bounds;
use crate::audited::TrustedHops;

/// Most requests of browsers at once; others wait for their turn, and browsers are patient.
const CONCURRENT: usize = 256;
/// How long logins that go on without their browsers keep the port from stopping.
const LAST_LOGINS: Duration = Duration::from_secs(5);

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct HttpPort {
    pub(crate) store: Store,
    pub(crate) provider_logins: Arc<ProviderLogins>,
    /// Who is believed about where browsers are.
    pub(crate) trusted_hops: TrustedHops,
    pub(crate) kept: Arc<Kept>,
}

/// What is asked of the config database once for many.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    keys: Brief<Option<String>>,
    health: Brief<StatusCode>,
}

impl HttpPort {
    /// Serves until `stop`.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let provider_logins = Arc::clone(&self.provider_logins);
        let browsers = Router::new()
            .route("/oidc/callback/{provider}", get(callback::callback))
            .route("/oidc/confirm", post(confirm::confirm))
            .layer(GlobalConcurrencyLimitLayer::new(CONCURRENT));
        // Beside them: a provider that is slow must not have the instance taken for one that is down.
        let router = Router::new()
            .route("/.well-known/jwks.json", get(jwks))
            .route("/healthz", get(healthz))
            .merge(browsers)
            .fallback(async || pages::not_found())
            .layer(DefaultBodyLimit::max(confirm::MAX_FORM_BYTES))
            .with_state(self);
        connections::serve(listener, router, Bounds::default(), stop).await;
        // What a browser began that went away.
        if timeout(LAST_LOGINS, provider_logins.settled()).await.is_err() {
            tracing::warn!("logins that a provider was asked about are left as they are");
        }
    }

    /// Where a browser is.
    fn address(&self, request: &Parts) -> String {
        self.trusted_hops.address(request)
    }
}

/// The public keys of access tokens.
async fn jwks(State(port): State<HttpPort>) -> Response {
    let asked = port.kept.keys.get(async {
        match published_keys(&port.store).await {
            Ok(keys) => Some(keys.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the keys cannot be published");
                None
            }
        }
    });
    match asked.await {
        Some(keys) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json")),
                (CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
            ];
            (headers, keys).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Whether the config database answers, for balancers that cannot ask by gRPC.
async fn healthz(State(port): State<HttpPort>) -> StatusCode {
    let asked = port.kept.health.get(async {
        match port.store.ping().await {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    });
    asked.await
}
