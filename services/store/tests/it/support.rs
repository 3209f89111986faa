//! Arrangements: a migrated database of one test's own, and things to put into it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
use domain::id::{BackupId, IncarnationId, InstanceId, LoginId, OperationId, ServerId, UserId};
use domain::operation::OperationKind;
use domain::random::SystemRandom;
use harness::{Cluster, Database, Login};
use secrecy::SecretString;
use serde_json::json;
use store::backups::{Artifact, NewBackup, TableName};
use store::logins::{LoginOrigin, NewLogin, TokenHash};
use store::operations::{Claimed, Enqueued, NewOperation, Operation};
use store::servers::{NewServer, Server};
use store::users::{NewUser, User};
use store::{ConnectError, ConnectOptions, Store, migrate};
use tokio::sync::OnceCell;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A migrated database and a store on it, as its owner.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
        let cluster = Cluster::shared().await;
        let template = TEMPLATE
            .get_or_init(|| async {
                let template = cluster.create_database().await;
                migrate::run(&template.url().into()).await.unwrap();
                template
            })
            .await;
        let database = cluster.copy_database(template).await;
        let store = connect(&database.url()).await.unwrap();
        Self { store, database }
    }

    /// A login role that is a member of a group role, and a store as it.
    pub(crate) async fn store_as(&self, group: &str) -> (Store, Login) {
        let login = Cluster::shared()
            .await
            .create_login(&format!("IN ROLE {group}"))
            .await;
        (connect(&self.database.url_as(&login)).await.unwrap(), login)
    }

    pub(crate) async fn user(&self, name: &str) -> User {
        self.store.users().create(new_user(name, false)).await.unwrap()
    }

    pub(crate) async fn administrator(&self, name: &str) -> User {
        self.store.users().create(new_user(name, true)).await.unwrap()
    }

    /// A login with a refresh token that works for an hour.
    pub(crate) async fn login(&self, user: &User) -> (LoginId, TokenHash) {
        let hash = hash();
        let login = self
            .store
            .logins()
            .start(new_login(user.id, hash, HOUR))
            .await
            .unwrap();
        (login.id, hash)
    }
}

pub(crate) async fn connect(url: &str) -> Result<Store, ConnectError> {
    Store::connect(&ConnectOptions {
        url: SecretString::from(url),
        max_connections: 5,
        application_name: "store tests".to_owned(),
    })
    .await
}

pub(crate) fn new_user(name: &str, administrator: bool) -> NewUser {
    NewUser {
        id: UserId::generate(&SystemRandom),
        username: name.parse().unwrap(),
        display_name: name.parse().unwrap(),
        password_hash: Some(SecretString::from("$argon2id$test")),
        administrator,
    }
}

pub(crate) fn new_login(user_id: UserId, hash: TokenHash, lifetime: Duration) -> NewLogin {
    NewLogin {
        id: LoginId::generate(&SystemRandom),
        user_id,
        user_etag: None,
        refresh_token_hash: hash,
        refresh_token_lifetime: lifetime,
        origin: LoginOrigin::default(),
    }
}

/// A hash no other call of this process returns.
pub(crate) fn hash() -> TokenHash {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    hash
}

/// Where a server named `host` listens, without TLS.
pub(crate) fn destination(host: &str) -> Destination {
    let tls = TlsPolicy::new(SslMode::Disable, "").unwrap();
    Destination::new(vec![Endpoint::new(host, 5432).unwrap()], tls).unwrap()
}

pub(crate) fn new_server(owner_id: UserId, name: &str, host: &str) -> NewServer {
    NewServer {
        id: ServerId::generate(&SystemRandom),
        owner_id,
        group: "Servers".parse().unwrap(),
        display_name: name.parse().unwrap(),
        destination: destination(host),
        maintenance_database: "postgres".parse().unwrap(),
        username: "app".parse().unwrap(),
        comment: String::new(),
    }
}

impl World {
    pub(crate) async fn server(&self, owner: &User, name: &str, host: &str) -> Server {
        self.store
            .servers()
            .create(&new_server(owner.id, name, host), None)
            .await
            .unwrap()
    }

    /// An instance with one server on it.
    pub(crate) async fn instance(&self, host: &str) -> InstanceId {
        let owner = self.user(&format!("owner-of-{host}")).await;
        self.server(&owner, "one", host).await.instance_id
    }
}

pub(crate) fn new_operation(server: &Server, kind: OperationKind) -> NewOperation {
    NewOperation {
        id: OperationId::generate(&SystemRandom),
        owner_id: server.owner_id,
        kind,
        server_id: server.id,
        database: "postgres".parse().unwrap(),
        backup_id: Some(BackupId::generate(&SystemRandom)),
        request: json!({ "schemas": ["public"] }),
        max_attempts: 1,
        request_id: None,
    }
}

/// A backup as the worker reports it.
pub(crate) fn new_backup(id: BackupId) -> NewBackup {
    NewBackup {
        id,
        schemas: vec!["public".parse().unwrap()],
        tables: vec![TableName {
            schema: "s\"1".parse().unwrap(),
            table: "Größe".parse().unwrap(),
        }],
        artifact: Artifact {
            storage_key: format!("backups/{id}"),
            size_bytes: 1 << 40,
            sha256: hash(),
        },
        tool_version: "15.4".to_owned(),
        server_version: "15.3".to_owned(),
    }
}

impl World {
    /// A server with a user of its own.
    pub(crate) async fn any_server(&self) -> Server {
        let user = self.user("somebody").await;
        self.server(&user, "one", "a").await
    }

    pub(crate) async fn enqueue(&self, new: &NewOperation) -> Operation {
        match self.store.operations().enqueue(new).await.unwrap() {
            Enqueued::Created(operation) => operation,
            Enqueued::Existing(operation) => panic!("{operation:?}"),
        }
    }

    /// Claims the oldest operation as a worker of its own.
    pub(crate) async fn claim(&self, lease: Duration) -> Claimed {
        let worker = IncarnationId::generate(&SystemRandom);
        self.store
            .operations()
            .claim(worker, lease)
            .await
            .unwrap()
            .expect("an operation is queued")
    }
}
