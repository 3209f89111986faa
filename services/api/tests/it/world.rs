//! Arrangements: a config database of one test's own, API instances on it, and callers.

use std::sync::Arc;
use std::time::Duration;

use api::{Api, Audit, Health, Parts, TrustedHops};
use audit::{AuditLog, LogOptions, WriterRole};
use auth::{
    Logins, LoginsOptions, Passwords, ProviderLogins, RevocationFeed, TokenVerifier, VerifierOptions,
};
use domain::clock::SystemClock;
use domain::egress::EgressPolicy;
use domain::id::UserId;
use domain::random::{Random, SystemRandom};
use harness::{Cluster, Database, Relay};
use rpc::access::v1::elevation_service_client::ElevationServiceClient;
use rpc::access::v1::grant_service_client::GrantServiceClient;
use rpc::access::v1::group_service_client::GroupServiceClient;
use rpc::access::v1::role_service_client::RoleServiceClient;
use rpc::audit::v1::audit_service_client::AuditServiceClient;
use rpc::auth::v1::auth_service_client::AuthServiceClient;
use rpc::auth::v1::{LoginWithPasswordRequest, TokenPair};
use rpc::backup::v1::backup_service_client::BackupServiceClient;
use rpc::catalog::v1::catalog_service_client::CatalogServiceClient;
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::operation_service_client::OperationServiceClient;
use rpc::pool::v1::pool_service_client::PoolServiceClient;
use rpc::query::v1::query_service_client::QueryServiceClient;
use rpc::server::v1::instance_service_client::InstanceServiceClient;
use rpc::server::v1::server_service_client::ServerServiceClient;
use rpc::settings::v1::settings_service_client::SettingsServiceClient;
use rpc::storage::v1::storage_service_client::StorageServiceClient;
use rpc::user::v1::CreateUserRequest;
use rpc::user::v1::user_service_client::UserServiceClient;
use secrecy::SecretString;
use storage::{Artifacts, DirectoryStore, ObjectStore, UserFiles, UserFilesOptions};
use store::users::NewUser;
use store::{ConnectOptions, Store, migrate};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::fake_sessions::FakeSessions;

pub const DEADLINE: Duration = Duration::from_secs(30);
/// What the contract promises for revocations.
pub const REVOCATION_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of one user's files.
pub const QUOTA_BYTES: u64 = 32 * 1024 * 1024;
pub const ADMIN: &str = "admin";
pub const PASSWORD: &str = "correct horse battery";

/// Two API instances on one config database, with an administrator.
pub struct World {
    pub a: Instance,
    pub b: Instance,
    pub admin: UserId,
    pub database: Database,
    /// The object store's directory is `root` in it.
    pub objects: TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(AuditSetup::default()).await
    }

    /// The same with an audit trail of another kind.
    pub async fn start_with(audit: AuditSetup) -> Self {
        let cluster = Cluster::shared().await;
        Self::assemble(cluster, migrated().await, &audit, None).await
    }

    /// The same, and between instance A and the config database is a relay.
    pub async fn start_behind_a_relay() -> (Self, Relay) {
        let cluster = Cluster::shared().await;
        let relay = Relay::start(cluster.port()).await;
        let audit = AuditSetup::default();
        let world = Self::assemble(cluster, migrated().await, &audit, Some(&relay)).await;
        (world, relay)
    }

    /// The same on a cluster that the test may stop.
    pub async fn start_on(cluster: &Cluster) -> Self {
        let database = cluster.create_database().await;
        migrate::run(&database.url().into()).await.unwrap();
        Self::assemble(cluster, database, &AuditSetup::default(), None).await
    }

    async fn assemble(
        cluster: &Cluster,
        database: Database,
        audit: &AuditSetup,
        relay: Option<&Relay>,
    ) -> Self {
        let login = cluster.create_login("IN ROLE pgmoor_api").await;
        let store = connect(&database.url_as(&login)).await;
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let passwords = Passwords::new(random.clone(), 2).unwrap();
        let admin = NewUser {
            id: UserId::generate(random.as_ref()),
            username: ADMIN.parse().unwrap(),
            display_name: "The Admin".parse().unwrap(),
            password_hash: Some(passwords.hash(&SecretString::from(PASSWORD)).await.unwrap()),
            administrator: true,
        };
        let admin = store.users().create_first(admin).await.unwrap().id;
        let objects = tempfile::tempdir().unwrap();
        std::fs::create_dir(objects.path().join("root")).unwrap();
        let mut endpoint = database.endpoint().clone();
        endpoint.port = relay.map_or(endpoint.port, Relay::port);
        let through = endpoint.url(&login, database.name());
        let a = Instance::start(connect(&through).await, &objects, audit).await;
        let b = Instance::start(connect(&database.url_as(&login)).await, &objects, audit).await;
        Self {
            a,
            b,
            admin,
            database,
            objects,
        }
    }

    /// Makes a user through the API and logs them in, through instance A.
    pub async fn member(&self, username: &str) -> Member {
        let admin = self.a.login(ADMIN).await;
        let user = rpc::user::v1::User {
            username: username.to_owned(),
            ..Default::default()
        };
        let request = CreateUserRequest {
            user: Some(user),
            password: PASSWORD.to_owned(),
        };
        let user = admin
            .users()
            .create_user(request)
            .await
            .unwrap()
            .into_inner()
            .user
            .unwrap();
        let caller = self.a.login(username).await;
        Member {
            name: user.name,
            caller,
        }
    }
}

/// How the instances keep their audit trail.
pub struct AuditSetup {
    pub options: LogOptions,
    pub trusted_hops: TrustedHops,
    /// False where nobody writes it to the database.
    pub is_written: bool,
}

impl Default for AuditSetup {
    fn default() -> Self {
        Self {
            options: LogOptions {
                flush_interval: Duration::from_millis(100),
                ..LogOptions::default()
            },
            trusted_hops: TrustedHops::default(),
            is_written: true,
        }
    }
}

/// A user with a login.
pub struct Member {
    /// As `users/{user}`.
    pub name: String,
    pub caller: Caller,
}

/// One API instance.
pub struct Instance {
    pub channel: Channel,
    pub address: String,
    pub health: Health,
    pub sessions: Arc<FakeSessions>,
    pub log: AuditLog,
    pub drain: CancellationToken,
    _stop: DropGuard,
}

impl Instance {
    /// One more on the config database of a world.
    pub async fn join(database: &Database, objects: &TempDir, audit: &AuditSetup) -> Self {
        let login = Cluster::shared().await.create_login("IN ROLE pgmoor_api").await;
        Self::start(connect(&database.url_as(&login)).await, objects, audit).await
    }

    async fn start(store: Store, objects: &TempDir, setup: &AuditSetup) -> Self {
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let passwords = Passwords::new(random.clone(), 2).unwrap();
        let clock = Arc::new(SystemClock);
        let options = VerifierOptions::default();
        let verifier = TokenVerifier::start(store.clone(), clock, random.clone(), options)
            .await
            .unwrap();
        let logins = Logins::start(
            store.clone(),
            random.clone(),
            passwords.clone(),
            LoginsOptions::default(),
            None,
        );
        let provider_logins = ProviderLogins::none(store.clone(), random.clone(), Arc::new(SystemClock));
        let sessions = Arc::new(FakeSessions::default());
        let objects = object_store(objects);
        let quota = UserFilesOptions {
            quota_bytes: QUOTA_BYTES,
        };
        let drain = CancellationToken::new();
        let rules = ["10.0.0.0/8", "*.example.com"].map(|rule| rule.parse().unwrap());
        let (log, writer) = AuditLog::new(
            WriterRole::Api,
            setup.options,
            Arc::new(SystemClock),
            random.clone(),
        );
        let audited = store.clone();
        let api = Api::start(Parts {
            audit: Audit {
                log: log.clone(),
                trusted_hops: setup.trusted_hops.clone(),
            },
            store,
            verifier: verifier.clone(),
            logins: logins.await.unwrap(),
            provider_logins,
            passwords,
            sessions: sessions.clone(),
            pools: sessions.clone(),
            egress: Arc::new(EgressPolicy {
                rules: rules.to_vec(),
                ..EgressPolicy::default()
            }),
            files: UserFiles::new(objects.clone(), random.clone(), quota),
            artifacts: Artifacts::new(objects, random.clone()),
            random,
            drain: drain.clone(),
        })
        .await
        .unwrap();
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        tasks.spawn(RevocationFeed::new(verifier, Duration::from_secs(1)).run(stop.clone()));
        tasks.spawn(api.poll_settings(stop.clone()));
        tasks.spawn(api.expire_elevations(stop.clone()));
        if setup.is_written {
            tasks.spawn(writer.run(audited, stop.clone()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let health = api.health();
        let serving = api.serve(listener, None, tower::layer::util::Identity::new());
        let ended = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                served = serving => served.unwrap(),
                () = ended.cancelled() => {}
            }
        });
        let channel = endpoint(&address).connect().await.unwrap();
        Self {
            channel,
            address,
            health,
            sessions,
            log,
            drain,
            _stop: stop.drop_guard(),
        }
    }

    /// A caller without credentials.
    pub fn anonymous(&self) -> Caller {
        Caller {
            channel: self.channel.clone(),
            token: None,
        }
    }

    /// A caller with a token.
    pub fn with_token(&self, token: &str) -> Caller {
        Caller {
            channel: self.channel.clone(),
            token: Some(token.to_owned()),
        }
    }

    /// The same caller on a connection of their own, which takes in little of a stream before it is read.
    pub async fn apart(&self, caller: &Caller) -> Caller {
        let endpoint = endpoint(&self.address).initial_stream_window_size(64 * 1024);
        Caller {
            channel: endpoint.connect().await.unwrap(),
            token: caller.token.clone(),
        }
    }

    pub async fn tokens(&self, username: &str) -> TokenPair {
        self.try_login(username, PASSWORD).await.unwrap()
    }

    pub async fn try_login(&self, username: &str, password: &str) -> Result<TokenPair, Status> {
        let request = LoginWithPasswordRequest {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let response = self.anonymous().auth().login_with_password(request).await?;
        Ok(response.into_inner().tokens.unwrap())
    }

    pub async fn login(&self, username: &str) -> Caller {
        self.with_token(&self.tokens(username).await.access_token)
    }
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(address.to_owned()).unwrap()
}

/// Somebody who calls one instance.
#[derive(Clone)]
pub struct Caller {
    channel: Channel,
    pub token: Option<String>,
}

type Authorized = InterceptedService<Channel, Authorization>;

macro_rules! clients {
    ($($method:ident: $client:ident),+ $(,)?) => {$(
        pub fn $method(&self) -> $client<Authorized> {
            $client::new(self.authorized())
        }
    )+};
}

impl Caller {
    clients! {
        audit: AuditServiceClient,
        auth: AuthServiceClient,
        users: UserServiceClient,
        settings: SettingsServiceClient,
        instances: InstanceServiceClient,
        servers: ServerServiceClient,
        pools: PoolServiceClient,
        query: QueryServiceClient,
        catalog: CatalogServiceClient,
        backups: BackupServiceClient,
        operations: OperationServiceClient,
        files: StorageServiceClient,
        elevations: ElevationServiceClient,
        grants: GrantServiceClient,
        groups: GroupServiceClient,
        roles: RoleServiceClient,
    }

    pub fn authorized(&self) -> Authorized {
        InterceptedService::new(self.channel.clone(), Authorization(self.token.clone()))
    }
}

#[derive(Clone)]
pub struct Authorization(Option<String>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Asserts how a call failed.
#[track_caller]
pub fn assert_fails<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: ErrorReason,
) -> Status {
    let status = result.expect_err("the call must fail");
    assert_eq!(
        (status.code(), rpc::error::reason(&status)),
        (code, Some(reason)),
        "{status:?}"
    );
    status
}

async fn migrated() -> Database {
    static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
    let cluster = Cluster::shared().await;
    let template = TEMPLATE
        .get_or_init(|| async {
            let template = cluster.create_database().await;
            migrate::run(&template.url().into()).await.unwrap();
            template
        })
        .await;
    cluster.copy_database(template).await
}

/// The objects in the directory that the instances share.
pub fn object_store(objects: &TempDir) -> Arc<dyn ObjectStore> {
    let root = objects.path().join("root");
    Arc::new(DirectoryStore::open(&root, Arc::new(SystemRandom)).unwrap())
}

pub async fn connect(url: &str) -> Store {
    let options = ConnectOptions {
        url: url.into(),
        max_connections: 4,
        application_name: "pgmoor-api-test".to_owned(),
    };
    Store::connect(&options).await.unwrap()
}
