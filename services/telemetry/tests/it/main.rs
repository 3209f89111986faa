//! Traces as a receiver sees them, logs as the one who reads them does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod receiver;

use std::io::Write;
use std::sync::{Arc, Mutex};

use telemetry::rpc::RpcSpans;
use telemetry::{Format, Options, propagation};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tracing::Instrument;

use receiver::Receiver;

/// A gRPC server with the layer under test, and a channel to it.
async fn served(tasks: &mut tokio::task::JoinSet<()>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .layer(RpcSpans::with_closing_lines())
        .add_service(health);
    tasks.spawn(async move {
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap()
    });
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn check(channel: &Channel, service: &str) -> Result<(), tonic::Status> {
    let inject = |mut request: tonic::Request<()>| {
        propagation::inject_metadata(request.metadata_mut());
        Ok(request)
    };
    let mut client = HealthClient::with_interceptor(channel.clone(), inject);
    client
        .check(HealthCheckRequest {
            service: service.to_owned(),
        })
        .await
        .map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_call_reaches_the_receiver_in_its_callers_trace() {
    let mut tasks = tokio::task::JoinSet::new();
    let receiver = Receiver::start(&mut tasks).await;
    let options = Options {
        service_name: "pgmoor-test".to_owned(),
        format: Format::Text,
        level: "error".to_owned(),
        otlp_endpoint: Some(receiver.endpoint.clone()),
    };
    let telemetry = telemetry::start(&options).unwrap();
    assert!(
        telemetry::start(&options).is_err(),
        "a process has one subscriber"
    );

    let channel = served(&mut tasks).await;
    let caller = tracing::info_span!("caller");
    check(&channel, "").instrument(caller.clone()).await.unwrap();
    check(&channel, "no.such.Service")
        .instrument(caller.clone())
        .await
        .unwrap_err();
    drop(caller);
    tokio::task::spawn_blocking(|| telemetry.finish()).await.unwrap();

    let spans = receiver.spans();
    let caller = spans
        .iter()
        .find(|span| span.name == "caller")
        .expect("the caller's span arrived");
    let calls: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "rpc.Health.Check")
        .collect();
    assert_eq!(calls.len(), 2);
    for call in &calls {
        assert_eq!(call.trace_id, caller.trace_id);
        assert_eq!(call.parent_span_id, caller.span_id);
        assert_eq!(call.service_name, "pgmoor-test");
        assert_eq!(call.attributes["rpc.service"], "grpc.health.v1.Health");
    }
    let mut codes: Vec<&str> = calls
        .iter()
        .map(|call| call.attributes["rpc.grpc.status_code"].as_str())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, ["0", "5"]);
}

/// A place for log lines that the test reads.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_call_has_one_closing_line_with_its_trace() {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    let lines = Lines::default();
    let (written, provider) = (
        lines.clone(),
        opentelemetry_sdk::trace::SdkTracerProvider::builder().build(),
    );
    let subscriber = tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .json()
                .with_writer(move || written.clone()),
        )
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    let _guard = tracing::subscriber::set_default(subscriber);

    let mut tasks = tokio::task::JoinSet::new();
    let channel = served(&mut tasks).await;
    // An unknown method: health checks that are answered are logged at debug level only.
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/pgmoor.query.v1.QueryService/Nothing");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let status = client
        .unary(tonic::Request::new(HealthCheckRequest::default()), path, codec)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let closing: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("call finished"))
        .collect();
    assert_eq!(closing.len(), 1, "{text}");
    for part in [
        "pgmoor.query.v1.QueryService",
        "\"Nothing\"",
        "Unimplemented",
        "duration_ms",
        "trace.id",
    ] {
        assert!(closing[0].contains(part), "{part} is not in {}", closing[0]);
    }
}

#[test]
fn level_that_cannot_be_read_is_refused() {
    let options = Options {
        service_name: "pgmoor-test".to_owned(),
        format: Format::Json,
        level: "pooler=loud".to_owned(),
        otlp_endpoint: None,
    };
    let error = telemetry::build(&options).err().expect("it is refused");
    assert!(error.to_string().contains("log level"), "{error}");
}
