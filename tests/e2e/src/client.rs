//! A client of the public API, as a generated one in any language would be: a channel, a token, typed
//! services.

use std::time::Duration;

use rpc::access::v1::elevation_service_client::ElevationServiceClient;
use rpc::access::v1::grant_service_client::GrantServiceClient;
use rpc::access::v1::group_service_client::GroupServiceClient;
use rpc::access::v1::role_service_client::RoleServiceClient;
use rpc::audit::v1::audit_service_client::AuditServiceClient;
use rpc::auth::v1::auth_service_client::AuthServiceClient;
use rpc::auth::v1::{LoginWithPasswordRequest, TokenPair};
use rpc::backup::v1::backup_service_client::BackupServiceClient;
use rpc::catalog::v1::catalog_service_client::CatalogServiceClient;
use rpc::operation::v1::operation_service_client::OperationServiceClient;
use rpc::pool::v1::pool_service_client::PoolServiceClient;
use rpc::query::v1::query_service_client::QueryServiceClient;
use rpc::server::v1::instance_service_client::InstanceServiceClient;
use rpc::server::v1::server_service_client::ServerServiceClient;
use rpc::settings::v1::settings_service_client::SettingsServiceClient;
use rpc::storage::v1::storage_service_client::StorageServiceClient;
use rpc::user::v1::user_service_client::UserServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::recording::{Recorded, Recorder};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bearer").finish_non_exhaustive()
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The transport of every service here.
pub type Transport = InterceptedService<Recorded, Bearer>;

/// A caller at one address: an API instance or the balancer.
#[derive(Clone)]
pub struct Client {
    transport: Recorded,
    bearer: Bearer,
    token: Option<String>,
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $client<Transport> {
            $client::with_interceptor(self.transport.clone(), self.bearer.clone())
        }
    )+};
}

impl Client {
    /// A caller without credentials. Connects with the first call.
    ///
    /// # Panics
    /// When `url` is not one.
    #[must_use]
    pub fn anonymous(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        Self {
            transport: Recorded {
                channel: endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy(),
                recorder: None,
            },
            bearer: Bearer(None),
            token: None,
        }
    }

    /// The same connection with that token.
    ///
    /// # Panics
    /// When the token cannot stand in a header.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        let value = format!("Bearer {token}").parse().expect("a token is ASCII");
        Self {
            transport: self.transport.clone(),
            bearer: Bearer(Some(value)),
            token: Some(token.to_owned()),
        }
    }

    /// The same, and what it is answered is kept.
    #[must_use]
    pub fn recorded_by(mut self, recorder: &Recorder) -> Self {
        self.transport.recorder = Some(recorder.clone());
        self
    }

    /// Logs in and returns the tokens.
    ///
    /// # Errors
    /// What LoginWithPassword answers.
    pub async fn log_in(&self, username: &str, password: &str) -> Result<TokenPair, Status> {
        let request = LoginWithPasswordRequest {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let response = self.auth().login_with_password(request).await?.into_inner();
        response
            .tokens
            .ok_or_else(|| Status::internal("the response has no tokens"))
    }

    /// The token of this caller, for what is not one of the services below.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The connection, for services that are not ours: health, reflection.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.transport.channel.clone()
    }

    services! {
        /// AuditService.
        audit: AuditServiceClient;
        /// AuthService.
        auth: AuthServiceClient;
        /// UserService.
        users: UserServiceClient;
        /// SettingsService.
        settings: SettingsServiceClient;
        /// InstanceService.
        instances: InstanceServiceClient;
        /// ServerService.
        servers: ServerServiceClient;
        /// GrantService.
        grants: GrantServiceClient;
        /// ElevationService.
        elevations: ElevationServiceClient;
        /// GroupService.
        groups: GroupServiceClient;
        /// RoleService.
        roles: RoleServiceClient;
        /// PoolService.
        pools: PoolServiceClient;
        /// QueryService.
        query: QueryServiceClient;
        /// CatalogService.
        catalog: CatalogServiceClient;
        /// BackupService.
        backups: BackupServiceClient;
        /// OperationService.
        operations: OperationServiceClient;
        /// StorageService.
        storage: StorageServiceClient;
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("channel", &self.transport.channel)
            .finish_non_exhaustive()
    }
}
