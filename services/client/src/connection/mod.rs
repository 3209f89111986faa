//! A connection to pgmoor's API: one HTTP/2 channel, the caller's token on every call, its renewal.
//!
//! Invariant: a call that may have been carried out is not sent a second time, unless repeating it changes
//! nothing.

mod bearer;
mod call;
mod target;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use domain::clock::Clock;
use domain::random::Random;
use http::HeaderValue;
use rpc::access::v1::elevation_service_client::ElevationServiceClient;
use rpc::access::v1::grant_service_client::GrantServiceClient;
use rpc::access::v1::group_service_client::GroupServiceClient;
use rpc::access::v1::role_service_client::RoleServiceClient;
use rpc::audit::v1::audit_service_client::AuditServiceClient;
use rpc::auth::v1::TokenPair;
use rpc::auth::v1::auth_service_client::AuthServiceClient;
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
use secrecy::SecretString;
use tonic::transport::Channel;

pub use bearer::Authorized;
pub use call::Call;
pub use target::{ConnectError, Target};
use tokens::Tokens;
pub(crate) use tokens::not_logged_in;

use crate::profile::{CredentialStore, Credentials};

/// Most bytes of one message: the API stays below 3.5 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Who calls.
#[derive(Debug)]
pub struct Identity(Tokens);

impl Identity {
    /// Nobody: enough to log in.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Tokens::anonymous())
    }

    /// Whoever an API token, or an access token that is not renewed, belongs to.
    #[must_use]
    pub fn token(token: SecretString) -> Self {
        Self(Tokens::fixed(token))
    }

    /// Whoever logged in. The access token is renewed in memory when it nears its end.
    #[must_use]
    pub fn login(username: &str, tokens: TokenPair) -> Self {
        Self(Tokens::login(Credentials::of("", username, tokens), None))
    }

    /// Whoever logged in on this machine; renewed tokens are stored for the next command.
    pub(crate) fn stored(credentials: Credentials, store: CredentialStore) -> Self {
        Self(Tokens::login(credentials, Some(store)))
    }
}

/// A connection to the API. Clones share the channel and the tokens.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    service: Authorized,
    random: Arc<dyn Random>,
}

macro_rules! services {
    ($($(#[$doc:meta])* $method:ident: $client:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $method(&self) -> $client<Authorized> {
            $client::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
        }
    )+};
}

impl Connection {
    /// A connection to `target`. Nothing is sent before the first call, which reports what is wrong with it.
    ///
    /// # Errors
    /// Where the target is not an address, or its certificate authorities cannot be read.
    pub fn new(
        target: &Target,
        identity: Identity,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ConnectError> {
        let channel = target.channel()?;
        let tokens = Arc::new(identity.0.over(channel.clone(), clock));
        let service = Authorized::new(channel.clone(), tokens);
        Ok(Self {
            channel,
            service,
            random,
        })
    }

    /// The same connection with this W3C `traceparent` on every call.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: HeaderValue) -> Self {
        self.service = self.service.with_traceparent(traceparent);
        self
    }

    /// The channel itself, without tokens.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    services! {
        /// AuditService.
        audit: AuditServiceClient,
        /// AuthService.
        auth: AuthServiceClient,
        /// BackupService.
        backups: BackupServiceClient,
        /// CatalogService.
        catalog: CatalogServiceClient,
        /// ElevationService.
        elevations: ElevationServiceClient,
        /// GrantService.
        grants: GrantServiceClient,
        /// GroupService.
        groups: GroupServiceClient,
        /// InstanceService.
        instances: InstanceServiceClient,
        /// OperationService.
        operations: OperationServiceClient,
        /// PoolService.
        pools: PoolServiceClient,
        /// QueryService.
        queries: QueryServiceClient,
        /// RoleService.
        roles: RoleServiceClient,
        /// ServerService.
        servers: ServerServiceClient,
        /// SettingsService.
        settings: SettingsServiceClient,
        /// StorageService.
        files: StorageServiceClient,
        /// UserService.
        users: UserServiceClient,
    }

    /// Waits until a renewal that is under way has stored its tokens: they would be lost otherwise, and the
    /// login with them.
    pub async fn close(self) {
        let tokens = self.service.tokens();
        let _ = tokio::time::timeout(Duration::from_secs(10), tokens.settle()).await;
    }
}
