//! Puts the caller's token on every request, after renewing it where it nears its end.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt as _};

use super::tokens::Tokens;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The channel with the caller's token.
#[derive(Debug, Clone)]
pub struct Authorized {
    channel: Channel,
    tokens: Arc<Tokens>,
    traceparent: Option<HeaderValue>,
}

impl Authorized {
    pub(super) fn new(channel: Channel, tokens: Arc<Tokens>) -> Self {
        Self {
            channel,
            tokens,
            traceparent: None,
        }
    }

    pub(super) fn with_traceparent(mut self, traceparent: HeaderValue) -> Self {
        self.traceparent = Some(traceparent);
        self
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

impl Service<Request<Body>> for Authorized {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The channel is waited for in `call`, where the token is known.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Self {
            channel,
            tokens,
            traceparent,
        } = self.clone();
        async move {
            if let Some(bearer) = tokens.bearer().await? {
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
            if let Some(traceparent) = traceparent {
                request.headers_mut().insert(TRACEPARENT, traceparent);
            }
            Ok(channel.oneshot(request).await?)
        }
        .boxed()
    }
}
