//! The HTTP port: where a provider sends the browser back, and what others check our tokens with. Apart from the gRPC port,
//! since balancers treat the two differently.
//!
//! Invariant: no page repeats anything of the request, what clients and providers say is shown as text, and no address leads
//! anywhere but to the port on the loopback that the login was begun with.

mod callback;
mod confirm;
mod pages;

use std::sync::Arc;
use std::time::Duration;

use ::auth::{ProviderLogins, published_keys};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

/// Most requests at once; others wait for their turn, and browsers are patient.
const CONCURRENT: usize = 256;
/// How long requests may take once the server is to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct HttpPort {
    pub(crate) store: Store,
    pub(crate) provider_logins: Arc<ProviderLogins>,
}

impl HttpPort {
    /// Serves until `stop`.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/oidc/callback/{provider}", get(callback::callback))
            .route("/oidc/confirm", post(confirm::confirm))
            .route("/.well-known/jwks.json", get(jwks))
            .route("/healthz", get(healthz))
            .fallback(async || pages::not_found())
            .layer(DefaultBodyLimit::max(confirm::MAX_FORM_BYTES))
            .layer(GlobalConcurrencyLimitLayer::new(CONCURRENT))
            .with_state(self);
        let stopped = stop.clone();
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
        let cut_off = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = served.into_future() => served,
            // A connection that stays open keeps nothing from stopping.
            () = cut_off => Ok(()),
        }
    }
}

/// The public keys of access tokens.
async fn jwks(State(port): State<HttpPort>) -> Response {
    match published_keys(&port.store).await {
        Ok(keys) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json")),
                (CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
            ];
            (headers, keys.to_string()).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "the keys cannot be published");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

/// Whether the config database answers, for balancers that cannot ask by gRPC.
async fn healthz(State(port): State<HttpPort>) -> StatusCode {
    match port.store.ping().await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
