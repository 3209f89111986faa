//! The least that two gRPC hops cost: a client, a process that forwards, a process that answers. No TLS, no
//! token, no trace, no log, no message is decoded.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use harness::{Process, eventually, free_port};
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{NamedService, ServerStreamingService};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

const PATH: &str = "/bench.Echo/Execute";

/// Both processes of the echo.
#[derive(Debug)]
pub(crate) struct Echo {
    _back: Process,
    _front: Process,
    front: u16,
}

impl Echo {
    /// Starts them; the last answers each call with one message of `response_bytes`.
    pub(crate) async fn start(response_bytes: usize) -> anyhow::Result<Self> {
        let (back_port, front_port) = (free_port(), free_port());
        let program = std::env::current_exe()?;
        let start = |port: u16, word: String| {
            Process::builder(&program)
                .args(["echo".to_owned(), port.to_string(), word])
                .name("echo")
                .spawn()
        };
        let back = start(back_port, format!("answer={response_bytes}"));
        let front = start(front_port, format!("forward={back_port}"));
        for port in [back_port, front_port] {
            eventually(Duration::from_secs(10), "the echo listens", async || {
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await
            })
            .await;
        }
        Ok(Self {
            _back: back,
            _front: front,
            front: front_port,
        })
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> anyhow::Result<Channel> {
        connect(self.front).await
    }
}

/// Calls the echo once and reads to the end of the stream.
pub(crate) async fn call(channel: &Channel, message: Bytes) -> Result<usize, Status> {
    let mut stream = start(channel, message).await?.into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await? {
        bytes += message.len();
    }
    Ok(bytes)
}

/// One of the two processes: `PORT answer=BYTES` or `PORT forward=PORT`.
pub(crate) async fn serve(words: Vec<String>) -> ExitCode {
    match try_serve(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn try_serve(words: &[String]) -> anyhow::Result<()> {
    let [port, what] = words else {
        anyhow::bail!("a port and a task are needed")
    };
    let handler = match what.split_once('=') {
        Some(("answer", bytes)) => Handler::Answer(Bytes::from(vec![b'x'; bytes.parse()?])),
        Some(("forward", port)) => Handler::Forward(connect(port.parse()?).await?),
        _ => anyhow::bail!("{what} is no task"),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    let routes = Routes::new(Service(handler));
    Ok(Server::builder().add_routes(routes).serve(address).await?)
}

async fn connect(port: u16) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    // The one before may be starting.
    let connected = eventually(Duration::from_secs(10), "the next hop listens", async || {
        endpoint.connect().await
    });
    Ok(connected.await)
}

async fn start(channel: &Channel, message: Bytes) -> Result<Response<tonic::Streaming<Bytes>>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(PATH);
    grpc.server_streaming(Request::new(message), path, Raw).await
}

#[derive(Debug, Clone)]
enum Handler {
    Answer(Bytes),
    Forward(Channel),
}

impl ServerStreamingService<Bytes> for Handler {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move {
            Ok(Response::new(match handler {
                Self::Answer(bytes) => futures::stream::once(async move { Ok(bytes) }).boxed(),
                Self::Forward(channel) => start(&channel, request.into_inner()).await?.into_inner().boxed(),
            }))
        })
    }
}

#[derive(Debug, Clone)]
struct Service(Handler);

impl NamedService for Service {
    const NAME: &'static str = "bench.Echo";
}

impl tower::Service<http::Request<tonic::body::Body>> for Service {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let handler = self.0.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(grpc.server_streaming(handler, request).await)
        })
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, destination: &mut EncodeBuf<'_>) -> Result<(), Status> {
        destination.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
