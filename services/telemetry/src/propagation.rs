//! Which trace a call belongs to, as it travels in headers: W3C Trace Context, `traceparent` and
//! `tracestate`.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt as _, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The trace that the caller's headers name; an empty context where they name none or are malformed.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// Names the current span in the headers of a call that is about to be made. Does nothing outside of a span.
pub fn inject(headers: &mut HeaderMap) {
    inject_into(&mut HeadersMut(headers));
}

/// As [`inject`], for gRPC metadata.
pub fn inject_metadata(metadata: &mut MetadataMap) {
    inject_into(&mut MetadataMut(metadata));
}

fn inject_into(injector: &mut dyn Injector) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), injector);
}

/// The id of the trace that the current span belongs to, as 32 hexadecimal digits. Nothing outside of one.
#[must_use]
pub fn trace_id() -> Option<String> {
    let context = Span::current().context();
    let trace = context.span().span_context().trace_id();
    (trace != TraceId::INVALID).then(|| trace.to_string())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // Both are the propagator's own and always valid.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct MetadataMut<'a>(&'a mut MetadataMap);

impl Injector for MetadataMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.try_into()) {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn extracted(value: &str) -> Context {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_str(value).unwrap());
        extract(&headers)
    }

    #[test]
    fn callers_trace_is_read_from_its_headers() {
        let context = extracted(TRACEPARENT);
        let span = context.span().span_context().clone();
        assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(span.is_sampled());
    }

    #[test]
    fn malformed_headers_name_no_trace() {
        for value in [
            "",
            "00-zz-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(
                !extracted(value).has_active_span() || !extracted(value).span().span_context().is_valid()
            );
        }
    }
}
