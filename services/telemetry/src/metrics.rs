//! Figures for Prometheus: gathered when they are asked for, served in plain HTTP.
//!
//! Whoever has figures is a [`Source`]; nothing is kept between two scrapes. Invariant: however many clients come and however
//! slow they are, no more than [`MOST_AT_ONCE`] are served, each for a short time.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections served at a time. The others wait to be accepted.
const MOST_AT_ONCE: usize = 16;
/// How long a connection may take from the first byte to the last.
const WITHIN: Duration = Duration::from_secs(10);
/// How soon accepting is tried again where the process has no more file descriptors, for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// OpenMetrics text, which Prometheus reads since 2.5.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a number does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It goes up only. Its name ends with `_total` where it is shown.
    Counter,
}

/// A number with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// Numbers of one meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The name, without `_total`.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// What its numbers do.
    pub kind: Kind,
    /// The numbers, no two with the same labels.
    pub samples: Vec<Sample>,
}

/// Whoever has figures.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// The figures of this moment.
    fn families(&self) -> Vec<Family>;
}

/// The figures of a process.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// The figures of a process of that role: so far its version and since when it runs, in Unix time.
    #[must_use]
    pub fn new(role: &'static str, version: &'static str, start_time: f64) -> Self {
        let mut metrics = Self(Registry::default());
        metrics.add(Process {
            role,
            version,
            start_time,
        });
        metrics
    }

    /// Shows the figures of `source` too.
    pub fn add(&mut self, source: impl Source) {
        self.0.register_collector(Box::new(Collected(source)));
    }

    /// Serves them at `/metrics` until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let registry = Arc::new(self.0);
        let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                accepted = accepted => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let registry = Arc::clone(&registry);
                    connections.spawn(async move {
                        let _place = place;
                        let served = timeout(WITHIN, answer(stream, &registry)).await;
                        if let Ok(Err(error)) = served {
                            tracing::debug!(%error, "a scrape broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a scrape cannot be accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

async fn answer(stream: TcpStream, registry: &Registry) -> Result<(), hyper::Error> {
    let service = service_fn(async |request| Ok::<_, Infallible>(respond(&request, registry)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WITHIN)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut response = Response::new(Full::from(text));
    let content_type = header::HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A source as the encoder wants it.
#[derive(Debug)]
struct Collected<S>(S);

impl<S: Source> Collector for Collected<S> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.0.families() {
            let kind = match family.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in &family.samples {
                if sample.labels.is_empty() {
                    write(&mut metric, family.kind, sample.value)?;
                } else {
                    write(
                        &mut metric.encode_family(&sample.labels)?,
                        family.kind,
                        sample.value,
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Gauge => metric.encode_gauge(&value),
        Kind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
    }
}

/// What every process says of itself.
#[derive(Debug)]
struct Process {
    role: &'static str,
    version: &'static str,
    start_time: f64,
}

impl Source for Process {
    fn families(&self) -> Vec<Family> {
        let labels = vec![
            ("role", self.role.to_owned()),
            ("version", self.version.to_owned()),
        ];
        vec![
            Family {
                name: "pgmoor_build_info",
                help: "Always 1; the labels say what runs",
                kind: Kind::Gauge,
                samples: vec![Sample { labels, value: 1.0 }],
            },
            Family {
                name: "pgmoor_start_time_seconds",
                help: "When the process started, in Unix time",
                kind: Kind::Gauge,
                samples: vec![Sample {
                    labels: Vec::new(),
                    value: self.start_time,
                }],
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[derive(Debug)]
    struct Things;

    impl Source for Things {
        fn families(&self) -> Vec<Family> {
            let sample = |database: &str, value| Sample {
                labels: vec![("database", database.to_owned())],
                value,
            };
            vec![Family {
                name: "pgmoor_things",
                help: "Things",
                kind: Kind::Counter,
                samples: vec![sample("sales", 2.0), sample("a\"b\\c\n", 0.5)],
            }]
        }
    }

    async fn get(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: here\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(WITHIN, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    }

    #[tokio::test]
    async fn figures_are_scraped_as_they_are_then() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut metrics = Metrics::new("pooler", "1.2.3", 5.0);
        metrics.add(Things);
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(metrics.serve(listener, stop.clone()));
        let answer = get(address, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/openmetrics-text"),
            "{answer}"
        );
        for line in [
            "pgmoor_build_info{role=\"pooler\",version=\"1.2.3\"} 1.0\n",
            "pgmoor_start_time_seconds 5.0\n",
            "# TYPE pgmoor_things counter\n",
            "pgmoor_things_total{database=\"sales\"} 2.0\n",
            "pgmoor_things_total{database=\"a\\\"b\\\\c\\n\"} 0.5\n",
        ] {
            assert!(answer.contains(line), "{line} is not in {answer}");
        }
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        assert!(get(address, "GET /").await.starts_with("HTTP/1.1 404 "));
        assert!(get(address, "POST /metrics").await.starts_with("HTTP/1.1 405 "));
        // Somebody who says nothing keeps nobody from being served.
        let _silent = TcpStream::connect(address).await.unwrap();
        assert!(get(address, "GET /metrics").await.starts_with("HTTP/1.1 200 "));
        stop.cancel();
        serving.join_next().await.unwrap().unwrap();
    }
}
