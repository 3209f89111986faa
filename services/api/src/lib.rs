//! The public gRPC services: each call is decoded, authorised, carried out and encoded.
//!
//! Invariant: an API instance is stateless. What it keeps in memory (settings, who is revoked, where poolers
//! are) is a copy that may be lost at any moment, and it holds no key that opens a credential. Every error
//! becomes a status in `status.rs`.
//!
//! One rpc, one file (tiny ones share a file by noun); conversions between the domain and the wire stand in
//! each service's `convert.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod audit;
mod audited;
mod auth;
mod backup;
mod bare_status;
mod catalog;
mod context;
mod database;
mod deciding;
mod duration;
mod elevation;
mod error;
mod grant;
mod group;
mod health;
mod http_port;
mod instance;
mod mask;
mod operation;
mod origin;
mod paging;
mod pool;
mod query;
mod resource;
mod role;
mod rpcs;
mod serve;
mod server;
mod settings;
mod settings_cache;
mod shares;
mod status;
mod storage;
mod upheld;
mod user;

use std::sync::Arc;

use ::auth::{
    AuthLayer, Logins, Passwords, ProviderLogins, StreamChecks, TokenVerifier, UnknownMethodPermission,
};
use ::sessions::Sessions;
use ::sessions::pools::Pools;
use ::storage::{Artifacts, UserFiles};
use domain::egress::EgressPolicy;
use domain::random::Random;
use rpc::descriptors;
use rpc::policy::{PolicyError, PolicyTable};
use store::{Store, StoreError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use crate::audited::{Audit, TrustedHops};
use crate::audited::{AuditedLayer, Methods, MethodsError};
use crate::context::Context;
use crate::deciding::Deciding;
use crate::elevation::Expiry;
pub use crate::health::Health;
use crate::http_port::HttpPort;
use crate::operation::Waits;
pub use crate::serve::{ServeError, Service};
use crate::server::first_look::FirstLooks;
use crate::settings_cache::SettingsCache;
use crate::shares::{Shares, SharesLayer};

/// What the API is made of.
pub struct Parts {
    /// The config database.
    pub store: Store,
    /// Checks tokens. Its revocation feed must run beside it.
    pub verifier: Arc<TokenVerifier>,
    /// Logs users in.
    pub logins: Logins,
    /// Logs users in with a provider.
    pub provider_logins: ProviderLogins,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Where query sessions are.
    pub sessions: Arc<dyn Sessions>,
    /// What poolers show, and where administrators command them.
    pub pools: Arc<dyn Pools>,
    /// Where servers may be.
    pub egress: Arc<EgressPolicy>,
    /// Users' files.
    pub files: UserFiles,
    /// What operations made.
    pub artifacts: Artifacts,
    /// Ids and the nonces of seals.
    pub random: Arc<dyn Random>,
    /// Where calls are recorded.
    pub audit: Audit,
    /// Cancelled when this instance goes away: open watches end, so that their readers ask another one.
    pub drain: CancellationToken,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Why the API cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A method's options are missing or wrong: a mistake in `proto/`.
    #[error("the policy of the methods cannot be read")]
    Policy(#[from] PolicyError),
    /// The requests of the methods cannot be read: a mistake in `proto/`.
    #[error("the requests of the methods cannot be read")]
    Methods(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A method names a permission that does not exist: a mistake in `proto/`.
    #[error(transparent)]
    Permission(#[from] UnknownMethodPermission),
    /// The config database cannot be read.
    #[error("the settings cannot be read")]
    Store(#[from] StoreError),
    /// The descriptors for reflection cannot be read: a mistake in the build.
    #[error("the descriptors cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl From<MethodsError> for StartError {
    fn from(error: MethodsError) -> Self {
        Self::Methods(Box::new(error))
    }
}

/// The public API of one instance.
#[derive(Debug)]
pub struct Api {
    settings: SettingsCache,
    health: Health,
    auth: AuthLayer,
    audited: AuditedLayer,
    shares: SharesLayer,
    routes: Routes,
    http_port: HttpPort,
    expiry: Expiry,
    stream_checks: StreamChecks,
    drain: CancellationToken,
}

impl Api {
    /// Assembles the services and reads the settings.
    ///
    /// # Errors
    /// Where a method's policy is missing or the config database cannot be read.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let policies = PolicyTable::read(descriptors::ALL)?;
        let auth = AuthLayer::new(&policies, parts.verifier.clone())?;
        let methods = Methods::read(descriptors::PUBLIC, &policies)?;
        let audit = parts.audit.log.clone();
        let trusted_hops = parts.audit.trusted_hops.clone();
        let audited = AuditedLayer::new(parts.audit, methods);
        let settings = SettingsCache::start(parts.store.clone()).await?;
        let drain = parts.drain.clone();
        let waits = Waits::new(parts.store.clone());
        let provider_logins = Arc::new(parts.provider_logins);
        let http_port = HttpPort {
            store: parts.store.clone(),
            provider_logins: provider_logins.clone(),
            trusted_hops: trusted_hops.clone(),
            kept: Arc::default(),
        };
        let stream_checks = StreamChecks::new(provider_logins.clone(), parts.verifier.clone());
        let expiry = Expiry {
            store: parts.store.clone(),
            audit: audit.clone(),
        };
        let context = Arc::new(Context {
            store: parts.store,
            verifier: parts.verifier,
            logins: parts.logins,
            provider_logins,
            passwords: parts.passwords,
            sessions: parts.sessions,
            pools: parts.pools,
            egress: parts.egress,
            settings: settings.clone(),
            files: parts.files,
            artifacts: parts.artifacts,
            waits,
            random: parts.random,
            first_looks: FirstLooks::new(),
            shares: Shares::new(audit.share()),
            deciding: Deciding::new(),
            drain: drain.clone(),
        });
        let health = Health::new();
        let routes = serve::routes(&context, &health)?;
        health.tell().await;
        Ok(Self {
            settings,
            health,
            auth,
            audited,
            shares: SharesLayer(context),
            routes,
            http_port,
            expiry,
            stream_checks,
            drain,
        })
    }

    /// How each service stands, to be told of what happens outside the API.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves the HTTP port until `stop`: where providers send browsers back. Must run, as a tracked task, where logins with
    /// a provider are configured.
    pub fn serve_http(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.http_port.clone().serve(listener, stop)
    }

    /// Writes down which elevations are over until `stop`. Must run, as a tracked task, while the API serves.
    pub fn expire_elevations(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        self.expiry.clone().run(stop)
    }

    /// Asks providers after those who have streams open, until `stop`. Must run, as a tracked task, while the API serves.
    pub fn check_streams(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        self.stream_checks.clone().run(stop)
    }

    /// Keeps the settings up to date until `stop`. Must run, as a tracked task, while the API serves.
    pub fn poll_settings(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let settings = self.settings.clone();
        async move { settings.poll(stop).await }
    }
}
