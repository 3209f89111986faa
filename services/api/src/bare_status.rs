//! Gives the errors of the gRPC library itself a reason, as every error of ours has one.
//!
//! A request that is no message of its type, or is larger than its method takes, never reaches a handler: the
//! library refuses it, and calls the first an internal error. To the caller both are a request that is wrong.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use rpc::error;
use rpc::errors::v1::ErrorReason;
use tonic::{Code, Status};
use tower::{Layer, Service};

const DETAILS: &str = "grpc-status-details-bin";

/// Looks at each response before it goes out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BareStatusLayer;

impl<S> Layer<S> for BareStatusLayer {
    type Service = BareStatus<S>;

    fn layer(&self, inner: S) -> BareStatus<S> {
        BareStatus(inner)
    }
}

/// A service behind a [`BareStatusLayer`].
#[derive(Debug, Clone)]
pub struct BareStatus<S>(S);

impl<S, B, R> Service<Request<B>> for BareStatus<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(match explained(&response) {
                Some(status) => status.into_http(),
                None => response,
            })
        })
    }
}

/// The status to send instead, where the response is a refusal of the library.
fn explained<R>(response: &Response<R>) -> Option<Status> {
    let headers = response.headers();
    // A status among the headers is one without a message before it.
    if !headers.contains_key("grpc-status") || headers.contains_key(DETAILS) {
        return None;
    }
    let status = Status::from_header_map(headers)?;
    let message = match status.code() {
        // A message that does not decode. Faults of ours have details, so this is none.
        Code::Internal => "the request is not a message of its type".to_owned(),
        Code::OutOfRange => format!("the request is too large: {}", status.message()),
        _ => return None,
    };
    Some(error::plain(
        Code::InvalidArgument,
        ErrorReason::InvalidField,
        message,
    ))
}
