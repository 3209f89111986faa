//! Logs on standard error, and traces that follow a call from process to process.
//!
//! [`start`] makes one subscriber for the process; [`Telemetry::finish`] sends what is still in memory and
//! belongs on every way out. [`rpc::RpcSpans`] gives each served call a span and one closing log line;
//! [`propagation`] carries the trace over the wire as W3C trace context. A trace id exists, and is logged,
//! also where no trace is sent anywhere, so that the lines of two processes about one call can be found
//! together.
//!
//! [`metrics::Metrics`] serves figures to Prometheus.
//!
//! Deliberately absent: any knowledge of our other crates.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod metrics;
pub mod propagation;
pub mod rpc;
mod span_fields;

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::span_fields::SpanFields;

/// How long the last spans may take to reach their receiver when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How a process reports on itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of the process in traces, such as `pgmoor-api`.
    pub service_name: String,
    /// How a log line is written.
    pub format: Format,
    /// The least severe level, or directives: `info`, `info,pooler=debug`.
    pub level: String,
    /// Where traces go, as `http://host:port` of an OTLP/gRPC receiver.
    pub otlp_endpoint: Option<String>,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why reporting cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The level is neither a level nor a list of directives.
    #[error("the log level cannot be read: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The endpoint cannot be used.
    #[error("traces cannot be sent to the OTLP endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The process has a subscriber already.
    #[error("reporting has been started already")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// What must be finished before the process ends.
#[derive(Debug)]
#[must_use = "the last spans are sent by `finish`"]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts reporting for the whole process. Call it inside the runtime that will live until
/// [`Telemetry::finish`].
///
/// # Errors
/// When the options cannot be used, or it was called before.
pub fn start(options: &Options) -> Result<Telemetry, StartError> {
    let (subscriber, telemetry) = build(options)?;
    subscriber.try_init()?;
    Ok(telemetry)
}

/// The subscriber that [`start`] installs, for a caller that installs it elsewhere.
///
/// # Errors
/// When the options cannot be used.
pub fn build(options: &Options) -> Result<(impl Subscriber + Send + Sync + use<>, Telemetry), StartError> {
    let lines = match options.format {
        Format::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .fmt_fields(SpanFields::default())
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let lines = lines.with_filter(EnvFilter::builder().parse(&options.level)?);

    let provider = provider(options)?;
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("pgmoor"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Nobody asks OpenTelemetry for the current span, and telling it at every poll costs.
        .with_context_activation(false)
        // Below it are the libraries' own spans, those of the exporter among them.
        .with_filter(LevelFilter::INFO);
    let subscriber = Registry::default().with(lines).with(spans);
    Ok((subscriber, Telemetry { provider }))
}

fn provider(options: &Options) -> Result<SdkTracerProvider, StartError> {
    let resource = Resource::builder()
        .with_service_name(options.service_name.clone())
        .build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &options.otlp_endpoint else {
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.clone())
        .with_timeout(FLUSH_TIMEOUT)
        .build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    Ok(builder
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}

impl Telemetry {
    /// Sends what is still in memory. Blocks for a few seconds at most; the runtime must still be alive on
    /// other threads.
    pub fn finish(self) {
        // A receiver that is away has been logged by the exporter; the process ends all the same.
        let _ = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT);
    }
}
