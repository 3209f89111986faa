//! The tower layer that leaves a record of each call, as its method's options say.
//!
//! It stands around authentication, so that it sees refusals too; who called it learns from [`auth::Seen`]. The request's
//! first message is looked at as it passes, never held back: see [`reader`]. What must be recorded has its room in the trail
//! before anything is done; without room the call is refused, or counted, as the operator chose.
//!
//! A refusal (UNAUTHENTICATED, PERMISSION_DENIED) is recorded whatever the options say, within a rate for each address.

mod address;
mod call;
mod methods;
mod names;
mod reader;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::audit::AuditLog;
use http::{Request, Response};
use pin_project_lite::pin_project;
use rpc::error;
use rpc::errors::v1::ErrorReason;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use tower::{Layer, Service};

pub(crate) use self::address::CallerAddress;
pub use self::address::TrustedHops;
use self::call::OpenCall;
pub(crate) use self::methods::{Methods, MethodsError};
use self::request::Tapped;
use self::response::Watched;

/// When a call that found no room is worth another try.
const RETRY: Duration = Duration::from_secs(2);

/// What calls leave their records in, and who is believed about where they come from.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The trail. Its writer must run beside it.
    pub log: AuditLog,
    /// The proxies in front.
    pub trusted_hops: TrustedHops,
}

/// Records calls.
#[derive(Debug, Clone)]
pub(crate) struct AuditedLayer {
    audit: Audit,
    methods: Arc<Methods>,
}

impl AuditedLayer {
    pub(crate) fn new(audit: Audit, methods: Methods) -> Self {
        Self {
            audit,
            methods: Arc::new(methods),
        }
    }
}

impl<S> Layer<S> for AuditedLayer {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Audited<S> {
        Audited {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose calls are recorded.
#[derive(Debug, Clone)]
pub struct Audited<S> {
    inner: S,
    layer: AuditedLayer,
}

impl<S> Service<Request<Body>> for Audited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let AuditedLayer { audit, methods } = &self.layer;
        let Some(method) = methods.get(request.uri().path()) else {
            // Health, reflection, and what does not exist.
            let answer = self.inner.call(request);
            return Answering::Going { answer, call: None };
        };
        let (parts, body) = request.into_parts();
        let Ok(call) = OpenCall::begin(audit, method, &parts) else {
            return Answering::Refused;
        };
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(call.seen());
        request.extensions_mut().insert(call.address());
        if let Some(holding) = call.holding() {
            request.extensions_mut().insert(holding);
        }
        let names = call.names();
        let request = request.map(|body| Body::new(Tapped::new(body, names)));
        let answer = self.inner.call(request);
        Answering::Going {
            answer,
            call: Some(Box::new(call)),
        }
    }
}

pin_project! {
    /// An answer that is not there yet.
    #[project = AnsweringProjection]
    #[derive(Debug)]
    pub enum Answering<F> {
        /// The call goes on.
        Going {
            #[pin]
            answer: F,
            call: Option<Box<OpenCall>>,
        },
        /// The call found no room.
        Refused,
    }
}

impl<F, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringProjection::Refused => Poll::Ready(Ok(unavailable().into_http())),
            AnsweringProjection::Going { answer, call } => {
                let answer = ready!(answer.poll(context));
                let Some(mut call) = call.take() else {
                    return Poll::Ready(answer);
                };
                Poll::Ready(answer.map(|response| {
                    // A status among the headers is one without a message before it.
                    if let Some(status) = Status::from_header_map(response.headers()) {
                        call.end(&status);
                        return response;
                    }
                    if call.is_recorded() {
                        response.map(|body| Body::new(Watched::new(body, call)))
                    } else {
                        call.forget();
                        response
                    }
                }))
            }
        }
    }
}

fn unavailable() -> Status {
    error::status(
        Code::Unavailable,
        ErrorReason::AuditUnavailable,
        ::audit::Unavailable.to_string(),
        std::iter::empty::<(String, String)>(),
        ErrorDetails::with_retry_info(Some(RETRY)),
    )
}
