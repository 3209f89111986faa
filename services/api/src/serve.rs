//! The services put together and served: authentication, gRPC-Web, health, reflection, keepalive.

use std::sync::Arc;
use std::time::Duration;

use auth::{AuthLayer, Authenticated};
use bytes::Bytes;
use http::{Request, Response};
use rpc::access::v1::elevation_service_server::ElevationServiceServer;
use rpc::access::v1::grant_service_server::GrantServiceServer;
use rpc::access::v1::group_service_server::GroupServiceServer;
use rpc::access::v1::role_service_server::RoleServiceServer;
use rpc::audit::v1::audit_service_server::AuditServiceServer;
use rpc::auth::v1::auth_service_server::AuthServiceServer;
use rpc::backup::v1::backup_service_server::BackupServiceServer;
use rpc::catalog::v1::catalog_service_server::CatalogServiceServer;
use rpc::descriptors;
use rpc::operation::v1::operation_service_server::OperationServiceServer;
use rpc::pool::v1::pool_service_server::PoolServiceServer;
use rpc::query::v1::query_service_server::QueryServiceServer;
use rpc::server::v1::instance_service_server::InstanceServiceServer;
use rpc::server::v1::server_service_server::ServerServiceServer;
use rpc::settings::v1::settings_service_server::SettingsServiceServer;
use rpc::storage::v1::storage_service_server::StorageServiceServer;
use rpc::user::v1::user_service_server::UserServiceServer;
use thiserror::Error;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{ServerTlsConfig, TcpIncoming};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tonic_reflection::server as reflection;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::Layer;

use crate::Api;
use crate::audit::AuditRpcs;
use crate::audited::Audited;
use crate::auth::AuthRpcs;
use crate::backup::BackupRpcs;
use crate::bare_status::{BareStatus, BareStatusLayer};
use crate::catalog::CatalogRpcs;
use crate::context::Context;
use crate::elevation::ElevationRpcs;
use crate::grant::GrantRpcs;
use crate::group::GroupRpcs;
use crate::health::Health;
use crate::instance::InstanceRpcs;
use crate::operation::OperationRpcs;
use crate::pool::PoolRpcs;
use crate::query::QueryRpcs;
use crate::role::RoleRpcs;
use crate::server::ServerRpcs;
use crate::settings::SettingsRpcs;
use crate::shares::Counted;
use crate::storage::StorageRpcs;
use crate::user::UserRpcs;

/// A connection without traffic is asked for a sign of life after so long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// And closed when none comes within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest request of QueryService: a script of 16 MiB with parameters or data for COPY beside it.
const MAX_QUERY_REQUEST_BYTES: usize = 24 * 1024 * 1024;
/// Largest response of QueryService: RunQuery fills 3 MiB, an Execute frame less.
const MAX_QUERY_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of metadata of one request.
const MAX_METADATA_BYTES: u32 = 16 * 1024;

/// What an outer layer wraps: gRPC-Web around the audit trail around authentication around the services.
pub type Service = GrpcWebService<Audited<BareStatus<Authenticated<Counted<Routes>>>>>;

/// Serving failed.
#[derive(Debug, Error)]
#[error("the public port cannot be served")]
pub struct ServeError(#[from] tonic::transport::Error);

/// The services by their paths.
pub(crate) fn routes(api: &Arc<Context>, health: &Health) -> Result<Routes, reflection::Error> {
    let query = QueryServiceServer::new(QueryRpcs(api.clone()))
        .max_decoding_message_size(MAX_QUERY_REQUEST_BYTES)
        .max_encoding_message_size(MAX_QUERY_RESPONSE_BYTES);
    let mut services = Services {
        routes: Routes::default(),
        health,
    };
    services.add(AuthServiceServer::new(AuthRpcs(api.clone())));
    services.add(UserServiceServer::new(UserRpcs(api.clone())));
    services.add(SettingsServiceServer::new(SettingsRpcs(api.clone())));
    services.add(InstanceServiceServer::new(InstanceRpcs(api.clone())));
    services.add(ServerServiceServer::new(ServerRpcs(api.clone())));
    services.add(query);
    services.add(CatalogServiceServer::new(CatalogRpcs(api.clone())));
    services.add(BackupServiceServer::new(BackupRpcs(api.clone())));
    services.add(OperationServiceServer::new(OperationRpcs(api.clone())));
    services.add(StorageServiceServer::new(StorageRpcs(api.clone())));
    services.add(PoolServiceServer::new(PoolRpcs(api.clone())));
    services.add(AuditServiceServer::new(AuditRpcs(api.clone())));
    services.add(GroupServiceServer::new(GroupRpcs(api.clone())));
    services.add(RoleServiceServer::new(RoleRpcs(api.clone())));
    services.add(GrantServiceServer::new(GrantRpcs(api.clone())));
    services.add(ElevationServiceServer::new(ElevationRpcs(api.clone())));
    let health_service = HealthServer::new(HealthService::from_health_reporter(health.reporter()));
    Ok(services
        .routes
        .add_service(health_service)
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?))
}

struct Services<'a> {
    routes: Routes,
    health: &'a Health,
}

impl Services<'_> {
    fn add<S>(&mut self, service: S)
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.health.add::<S>();
        self.routes = std::mem::take(&mut self.routes).add_service(service);
    }
}

/// What reflection shows: the public API, the details of errors, health, and reflection itself.
fn described() -> reflection::Builder<'static> {
    reflection::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors::PUBLIC)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

impl Api {
    /// Serves until the drain token is cancelled and the last call has ended. `outer` wraps everything
    /// (tracing; pass [`tower::layer::util::Identity`] for nothing). With `tls` the port speaks TLS, else
    /// cleartext HTTP/2, and HTTP/1.1 for gRPC-Web.
    ///
    /// # Errors
    /// Where the listener fails or the TLS configuration is wrong.
    pub async fn serve<L, B>(
        self,
        listener: TcpListener,
        tls: Option<ServerTlsConfig>,
        outer: L,
    ) -> Result<(), ServeError>
    where
        L: Layer<Service> + Clone,
        L::Service: tower::Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as tower::Service<Request<Body>>>::Future: Send,
        <L::Service as tower::Service<Request<Body>>>::Error: Into<tonic::codegen::StdError> + Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let mut server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_METADATA_BYTES);
        if let Some(tls) = tls {
            server = server.tls_config(tls)?;
        }
        let drain = self.drain.clone();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let auth: AuthLayer = self.auth;
        server
            .layer(outer)
            .layer(GrpcWebLayer::new())
            .layer(self.audited)
            .layer(BareStatusLayer)
            .layer(auth)
            .layer(self.shares)
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(incoming, async move { drain.cancelled().await })
            .await?;
        Ok(())
    }
}
