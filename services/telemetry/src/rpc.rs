//! A span and one closing log line for every call a gRPC server answers.
//!
//! The span is `rpc.<service>.<method>`, continues the caller's trace and lasts until the last byte of the
//! answer, or until the caller goes away. Handlers add the ids they learn with [`record`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::trace::{Status, TraceContextExt};
use pin_project_lite::pin_project;
use tonic::Code;
use tower::{Layer, Service};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::propagation;

/// The ids a handler can put on the span of its call, and with it on every line logged inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Who calls.
    User,
    /// The server the call is about.
    Server,
    /// The query session.
    Session,
    /// The execution in it.
    Execution,
    /// The operation.
    Operation,
}

/// Puts an id on the span of the call that is being answered. Call it in the span itself, not in one below
/// it.
pub fn record(id: Id, value: &dyn std::fmt::Display) {
    let name = match id {
        Id::User => "user.id",
        Id::Server => "server.id",
        Id::Session => "session.id",
        Id::Execution => "execution.id",
        Id::Operation => "operation.id",
    };
    Span::current().record(name, field::display(value));
}

/// The layer: the outermost of a server, so that refusals of the layers below have their span too. Below it
/// the request's `traceparent` names the call's own span.
#[derive(Debug, Clone, Copy)]
pub struct RpcSpans {
    lines: Lines,
}

/// Who writes a call's closing line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    Here,
    Below,
}

impl RpcSpans {
    /// Writes a closing line for each call.
    #[must_use]
    pub const fn with_closing_lines() -> Self {
        Self { lines: Lines::Here }
    }

    /// Leaves the closing lines to a layer below, which knows more to say.
    #[must_use]
    pub const fn without_lines() -> Self {
        Self { lines: Lines::Below }
    }
}

impl<S> Layer<S> for RpcSpans {
    type Service = Spanned<S>;

    fn layer(&self, inner: S) -> Spanned<S> {
        Spanned {
            inner,
            lines: self.lines,
        }
    }
}

/// A service whose calls have spans.
#[derive(Debug, Clone)]
pub struct Spanned<S> {
    inner: S,
    lines: Lines,
}

impl<S, B, R> Service<Request<B>> for Spanned<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<Observed<R>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = Call::begin(request.uri().path(), request.headers(), self.lines);
        let answer = call.span.in_scope(|| {
            propagation::inject(request.headers_mut());
            self.inner.call(request)
        });
        Answering {
            answer,
            call: Some(call),
        }
    }
}

/// A call from its first to its last byte. Logs the closing line when dropped.
#[derive(Debug)]
struct Call {
    span: Span,
    method: Method,
    started: Instant,
    /// None until the answer said; it stays so in gRPC-Web, whose trailers travel as data.
    code: Option<Code>,
    ended: bool,
    lines: Lines,
}

#[derive(Debug)]
struct Method {
    service: String,
    method: String,
}

impl Method {
    /// From `/package.Service/Method`. What a client made up stays out of names and logs.
    fn of_path(path: &str) -> Self {
        let known = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
            !text.is_empty() && text.len() <= 100 && text.bytes().all(plain)
        };
        match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((service, method)) if known(service) && known(method) => Self {
                service: service.to_owned(),
                method: method.to_owned(),
            },
            _ => Self {
                service: "unknown".to_owned(),
                method: "unknown".to_owned(),
            },
        }
    }

    fn span_name(&self) -> String {
        let service = self.service.rsplit('.').next().unwrap_or(&self.service);
        format!("rpc.{service}.{}", self.method)
    }
}

impl Call {
    fn begin(path: &str, headers: &HeaderMap, lines: Lines) -> Self {
        let method = Method::of_path(path);
        let span = tracing::info_span!(
            "rpc",
            otel.name = method.span_name(),
            otel.kind = "server",
            trace.id = field::Empty,
            user.id = field::Empty,
            server.id = field::Empty,
            session.id = field::Empty,
            execution.id = field::Empty,
            operation.id = field::Empty,
        );
        // An error means that no layer for traces is installed.
        let _ = span.set_parent(propagation::extract(headers));
        let context = span.context();
        let trace = context.span().span_context().clone();
        if trace.is_valid() {
            span.record("trace.id", field::display(trace.trace_id()));
        }
        if trace.is_sampled() {
            span.set_attribute("rpc.system", "grpc");
            span.set_attribute("rpc.service", method.service.clone());
            span.set_attribute("rpc.method", method.method.clone());
        }
        Self {
            span,
            method,
            started: Instant::now(),
            code: None,
            ended: false,
            lines,
        }
    }

    /// Notes the status, from trailers or from the headers of an answer without a body.
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        if let Some(code) = self.code {
            self.span
                .set_attribute("rpc.grpc.status_code", i64::from(code as i32));
            if is_servers_fault(code) {
                self.span.set_status(Status::error(code.description()));
            }
        }
        if self.lines == Lines::Here {
            self.write_line();
        }
    }
}

impl Call {
    fn write_line(&self) {
        let Method { service, method } = &self.method;
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if !self.ended && self.code.is_none() {
            tracing::info!(
                rpc.service = service,
                rpc.method = method,
                duration_ms,
                "the caller went away"
            );
            return;
        }
        let status = self.code.map(field::debug);
        if service == "grpc.health.v1.Health" {
            // Load balancers ask every second.
            tracing::debug!(
                rpc.service = service,
                rpc.method = method,
                duration_ms,
                grpc.status = status,
                "call finished"
            );
        } else {
            tracing::info!(
                rpc.service = service,
                rpc.method = method,
                duration_ms,
                grpc.status = status,
                "call finished"
            );
        }
    }
}

/// OpenTelemetry's rule for the server's side of a call.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

pin_project! {
    /// The answer to a call, not there yet.
    #[derive(Debug)]
    pub struct Answering<F> {
        #[pin]
        answer: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<Observed<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.call {
            Some(call) => {
                let _entered = call.span.enter();
                this.answer.poll(context)
            }
            None => this.answer.poll(context),
        };
        let answer = ready!(polled);
        let mut call = this.call.take();
        Poll::Ready(answer.map(|response| {
            if let Some(call) = &mut call {
                call.note(response.headers());
                call.ended = response.body().is_end_stream();
            }
            response.map(|body| Observed { body, call })
        }))
    }
}

pin_project! {
    /// The body of an answer, watched for its trailers.
    #[derive(Debug)]
    pub struct Observed<B> {
        #[pin]
        body: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for Observed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(call) = this.call else {
            return this.body.poll_frame(context);
        };
        let polled = {
            let _entered = call.span.enter();
            this.body.poll_frame(context)
        };
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    call.note(trailers);
                    *this.call = None;
                }
            }
            Some(Err(_)) | None => {
                call.ended = true;
                *this.call = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_is_named_after_service_and_method() {
        let method = Method::of_path("/pgmoor.query.v1.QueryService/Execute");
        assert_eq!(method.span_name(), "rpc.QueryService.Execute");
        assert_eq!(method.service, "pgmoor.query.v1.QueryService");
    }

    #[test]
    fn paths_that_clients_make_up_stay_out_of_names() {
        let long = format!("/{}/x", "a".repeat(101));
        for path in ["", "/", "/x", "/a/b/c", "/a/b\nERROR forged", "/%1b/x", &long] {
            assert_eq!(Method::of_path(path).span_name(), "rpc.unknown.unknown", "{path}");
        }
    }
}
