//! The connections of the HTTP port.
//!
//! Invariant: whoever connects gets a place for a bounded time and does a bounded thing with it. A head has to come at once, an
//! answer has its deadline, a connection its end, and there are so many at most; others wait in the backlog.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt as _;

/// Before another connection is taken after one could not be: out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of a head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once.
    pub(super) connections: usize,
    /// Until a request's head is there, the first one's and each one's after it.
    pub(super) head: Duration,
    /// Until a request is answered. The provider is asked meanwhile.
    pub(super) answer: Duration,
    /// Until a connection is closed whatever goes on on it.
    pub(super) connection: Duration,
    /// For requests under way, once the server is to stop.
    pub(super) last_answers: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            connection: Duration::from_secs(5 * 60),
            last_answers: Duration::from_secs(10),
        }
    }
}

/// Serves until `stop`, and until requests under way have their answers.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) {
    let (tasks, places) = (TaskTracker::new(), Arc::new(Semaphore::new(bounds.connections)));
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = connection(stream, peer, router.clone(), bounds, stop.clone(), place);
                    tasks.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "the HTTP port takes no connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let _: Option<()> = stop.run_until_cancelled(accepting).await;
    drop(listener);
    tasks.close();
    // A connection that stays open keeps nothing from stopping.
    let _ = timeout(bounds.last_answers, tasks.wait()).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(router, request, peer, bounds.answer).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let until_closed = async {
        let mut served = std::pin::pin!(served);
        tokio::select! {
            ended = served.as_mut() => ended,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    };
    match timeout(bounds.connection, until_closed).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the HTTP port ended early"),
    }
}

async fn answer(
    router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    deadline: Duration,
) -> Response {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(TcpConnectInfo {
        local_addr: None,
        remote_addr: Some(peer),
    });
    match timeout(deadline, router.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const DEADLINE: Duration = Duration::from_secs(30);

    fn short() -> Bounds {
        Bounds {
            connections: 2,
            head: SHORT,
            answer: SHORT,
            connection: DEADLINE,
            last_answers: SHORT,
        }
    }

    /// Serves beside a test, until it has passed.
    async fn beside(bounds: Bounds, test: impl AsyncFnOnce(SocketAddr)) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/slow", get(std::future::pending::<()>))
            .route("/body", post(async |body: axum::body::Bytes| body));
        let stop = CancellationToken::new();
        let serving = serve(listener, router, bounds, stop.clone());
        let testing = async {
            timeout(DEADLINE, test(address)).await.unwrap();
            stop.cancel();
        };
        tokio::join!(serving, testing);
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // One that is hung up on gets nothing.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    const CLOSE: &str = "host: x\r\nconnection: close\r\n";

    #[tokio::test]
    async fn client_that_sends_its_head_drop_by_drop_is_hung_up_on() {
        beside(short(), async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (begun, mut sent) = (Instant::now(), 0);
            let mut answer = Vec::new();
            for byte in b"GET / HTTP/1.1\r\nx-endless: "
                .iter()
                .chain(std::iter::repeat(&b'a'))
            {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sent += 1;
                // Hung up on, or told so first.
                let read = timeout(Duration::from_millis(20), stream.read_buf(&mut answer)).await;
                if matches!(read, Ok(Ok(0) | Err(_))) {
                    break;
                }
            }
            assert!(
                begun.elapsed() < 20 * SHORT,
                "{sent} bytes in {:?}",
                begun.elapsed()
            );
            assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
            assert!(
                ask(address, &format!("GET / HTTP/1.1\r\n{CLOSE}\r\n"))
                    .await
                    .ends_with("here")
            );
        })
        .await;
    }

    #[tokio::test]
    async fn connections_that_say_nothing_give_their_places_back() {
        beside(short(), async |address| {
            // Ten times as many as there are places.
            let mut silent = Vec::new();
            for _ in 0..20 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let answer = ask(address, &format!("GET / HTTP/1.1\r\n{CLOSE}\r\n")).await;
            assert!(answer.ends_with("here"), "{answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn request_that_takes_too_long_is_answered_all_the_same() {
        beside(short(), async |address| {
            let answer = ask(address, &format!("GET /slow HTTP/1.1\r\n{CLOSE}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            // A body that does not come.
            let answer = ask(
                address,
                &format!("POST /body HTTP/1.1\r\n{CLOSE}content-length: 9\r\n\r\nabc"),
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        })
        .await;
    }
}
