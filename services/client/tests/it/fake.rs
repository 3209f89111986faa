//! A server that implements the generated traits as far as the tests go, and remembers what it was asked.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rpc::auth::v1::TokenPair;
use rpc::errors::v1::ErrorReason;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Status};

mod auth;
mod grants;
mod query;
pub use query::SESSION;
mod servers;
mod settings;
mod storage;

/// What the server is asked to do, and what it did.
#[derive(Debug)]
pub struct State {
    pub counts: Counts,
    /// How long access tokens live.
    pub lifetime: Mutex<Duration>,
    /// Access tokens that are refused as expired, whatever their expiry says.
    pub expired: Mutex<HashSet<String>>,
    /// The one refresh token that works.
    pub refresh_token: Mutex<String>,
    /// True once a refresh token was used twice.
    pub reused: Mutex<bool>,
    /// Refreshes wait for this where it is set.
    pub hold_refresh: Mutex<Option<Arc<Notify>>>,
    /// So many calls of ListServers and OpenSession are answered UNAVAILABLE.
    pub unavailable: AtomicUsize,
    /// Lets a held execution go on.
    pub proceed: Notify,
    /// Set by CancelExecution.
    pub cancelled: Notify,
    /// What CopyIn and UploadFile received.
    pub received: Mutex<Vec<u8>>,
    /// What a download gives.
    pub content: Mutex<Vec<u8>>,
    /// What servers allow.
    pub policy: Mutex<grants::Policy>,
}

/// How often it was asked.
#[derive(Debug, Default)]
pub struct Counts {
    pub refresh: AtomicUsize,
    pub who_am_i: AtomicUsize,
    pub list_servers: AtomicUsize,
    pub open_session: AtomicUsize,
    pub close_session: AtomicUsize,
    pub execute: AtomicUsize,
    pub resume: AtomicUsize,
    pub fetch_more: AtomicUsize,
    pub cancel: AtomicUsize,
    pub download: AtomicUsize,
}

/// A running server; it ends with the value.
pub struct Fake {
    pub state: Arc<State>,
    pub url: String,
    _serving: JoinSet<()>,
}

/// One of the services, over the same state.
#[derive(Debug, Clone)]
struct Service(Arc<State>);

impl Fake {
    pub async fn start() -> Self {
        let state = Arc::new(State {
            counts: Counts::default(),
            lifetime: Mutex::new(Duration::from_secs(300)),
            expired: Mutex::default(),
            refresh_token: Mutex::new("refresh-0".into()),
            reused: Mutex::new(false),
            hold_refresh: Mutex::default(),
            unavailable: AtomicUsize::new(0),
            proceed: Notify::new(),
            cancelled: Notify::new(),
            received: Mutex::default(),
            content: Mutex::default(),
            policy: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = || Service(Arc::clone(&state));
        let router = tonic::transport::Server::builder()
            .add_service(rpc::access::v1::grant_service_server::GrantServiceServer::new(
                service(),
            ))
            .add_service(rpc::auth::v1::auth_service_server::AuthServiceServer::new(
                service(),
            ))
            .add_service(rpc::query::v1::query_service_server::QueryServiceServer::new(
                service(),
            ))
            .add_service(rpc::server::v1::server_service_server::ServerServiceServer::new(
                service(),
            ))
            .add_service(rpc::settings::v1::settings_service_server::SettingsServiceServer::new(service()))
            .add_service(rpc::storage::v1::storage_service_server::StorageServiceServer::new(service()));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            state,
            url,
            _serving: serving,
        }
    }

    /// An access token that lives for as long as the state says, and the refresh token that works.
    pub fn pair(&self) -> TokenPair {
        self.state.pair("access-0".into())
    }
}

impl State {
    pub fn count(&self, counter: impl Fn(&Counts) -> &AtomicUsize) -> usize {
        counter(&self.counts).load(Ordering::SeqCst)
    }

    #[allow(clippy::disallowed_methods, reason = "the fake server's own clock")]
    fn pair(&self, access_token: String) -> TokenPair {
        let expires = SystemTime::now() + *self.lifetime.lock();
        TokenPair {
            access_token,
            access_token_expire_time: Some(expires.into()),
            refresh_token: self.refresh_token.lock().clone(),
            refresh_token_expire_time: None,
        }
    }

    /// Lets a call pass if it carries a token that has not expired.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(value) = request.metadata().get("authorization") else {
            return Err(rpc::error::plain(
                Code::Unauthenticated,
                ErrorReason::CredentialsMissing,
                "no token",
            ));
        };
        let token = value.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        if self.expired.lock().contains(token) {
            return Err(rpc::error::plain(
                Code::Unauthenticated,
                ErrorReason::TokenExpired,
                "the token has expired",
            ));
        }
        Ok(())
    }

    /// UNAVAILABLE as long as the state says so.
    fn available(&self) -> Result<(), Status> {
        let left = self
            .unavailable
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(rpc::error::plain(
                Code::Unavailable,
                ErrorReason::ShuttingDown,
                "shutting down",
            )),
            Err(_) => Ok(()),
        }
    }
}

/// The methods no test calls, in the form that `async_trait` gives a method: it does not look into macros.
macro_rules! not_offered {
    ($($method:ident($request:ty) -> $response:ty;)+) => {$(
        fn $method<'me, 'future>(
            &'me self,
            _: tonic::Request<$request>,
        ) -> std::pin::Pin<
            Box<dyn Future<Output = Result<tonic::Response<$response>, tonic::Status>> + Send + 'future>,
        >
        where
            'me: 'future,
            Self: 'future,
        {
            Box::pin(async { Err(tonic::Status::unimplemented(stringify!($method))) })
        }
    )+};
}
use not_offered;
