//! A config database, a target database with a server registered for it, and workers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::backup::{BackupRequest, BackupSelection, RestoreRequest};
use domain::clock::SystemClock;
use domain::egress::EgressPolicy;
use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
use domain::id::{BackupId, CredentialId, IncarnationId, OperationId, ServerId, UserId};
use domain::name::Identifier;
use domain::operation::{OperationFailure, OperationKind, OperationOutcome, OperationState};
use domain::random::{Random, SystemRandom};
use harness::{Cluster, Connection, Database, Login, eventually};
use sealing::{Binding, Opener, OpeningKey, Sealer};
use secrecy::SecretString;
use storage::{Artifacts, DirectoryStore, ObjectStore, UploadOptions, UserFiles, UserFilesOptions};
use store::operations::{NewOperation, Operation};
use store::servers::{NewCredential, NewServer, Server};
use store::users::NewUser;
use store::{ConnectOptions, Store, migrate};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use worker::{Worker, WorkerOptions, WorkerParts};

use crate::slots::SlotGiver;

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) worker_store: Store,
    pub(crate) target: Database,
    pub(crate) login: Login,
    pub(crate) user: UserId,
    pub(crate) server: Server,
    pub(crate) slots: Arc<SlotGiver>,
    pub(crate) key: OpeningKey,
    pub(crate) directory: TempDir,
    objects: Arc<dyn ObjectStore>,
    /// What its operations' backends are found in.
    pub(crate) cluster: &'static Cluster,
    config: Database,
}

/// A worker that runs until it is told to end or the test is over.
pub(crate) struct Running {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    pub(crate) async fn end(mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.tasks.join_next())
            .await
            .expect("the worker ends");
    }

    /// As a kill would: nothing is written down, nothing cleaned up.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
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
        let config = cluster.copy_database(template).await;
        let store = connect(config.url()).await;
        // What the worker may do is what its role may.
        let role = cluster.create_login("IN ROLE pgmoor_worker").await;
        let worker_store = connect(config.url_as(&role)).await;

        let login = cluster.create_login("").await;
        let target = cluster.create_database().await;
        target
            .execute(&format!(
                "ALTER DATABASE {} OWNER TO {}",
                target.name(),
                login.user
            ))
            .await;
        let directory = tempfile::tempdir().unwrap();
        let objects = directory.path().join("objects");
        std::fs::create_dir(&objects).unwrap();
        let objects = Arc::new(DirectoryStore::open(&objects, random()).unwrap());
        let user = user(&store).await;
        let key = OpeningKey::generate(&SystemRandom);
        let endpoint = target.endpoint().clone();
        let server = register(
            &store,
            user,
            &key,
            (&endpoint.host, endpoint.port),
            &login,
            target.name(),
        )
        .await;
        Self {
            store,
            worker_store,
            target,
            login,
            user,
            server,
            slots: Arc::new(SlotGiver::new(2)),
            key,
            directory,
            objects,
            cluster,
            config,
        }
    }

    /// With `shop` (two tables, a view, a sequence, a function) and `other` in the target.
    pub(crate) async fn with_data() -> Self {
        let world = Self::new().await;
        world
            .owner()
            .await
            .batch_execute(
                "CREATE SCHEMA shop;
                 CREATE TABLE shop.orders (id serial PRIMARY KEY, note text);
                 INSERT INTO shop.orders (note) SELECT md5(i::text) FROM generate_series(1, 20000) i;
                 CREATE TABLE shop.\"Odd.*\" AS SELECT i FROM generate_series(1, 100) i;
                 CREATE VIEW shop.v AS SELECT count(*) FROM shop.orders;
                 CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
                 CREATE SCHEMA other;
                 CREATE TABLE other.t AS SELECT 1 AS x",
            )
            .await
            .unwrap();
        world
    }

    pub(crate) fn options(&self) -> WorkerOptions {
        WorkerOptions {
            poll_interval: Duration::from_millis(50),
            keep_interval: Duration::from_millis(100),
            egress: EgressPolicy {
                rules: vec!["127.0.0.1".parse().unwrap()],
                loopback_ports: BTreeSet::from([self.cluster.port()]),
                config_database: Vec::new(),
            },
            ..WorkerOptions::new(self.directory.path().join("scratch"))
        }
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(self.options()).await
    }

    pub(crate) async fn start_with(&self, options: WorkerOptions) -> Running {
        let parts = WorkerParts {
            store: self.worker_store.clone(),
            sessions: self.slots.clone(),
            opener: Opener::new([self.key.clone()]),
            artifacts: self.artifacts(),
            files: self.files(),
            clock: Arc::new(SystemClock),
            incarnation: IncarnationId::generate(&SystemRandom),
        };
        let worker = Worker::new(parts, options).await.unwrap();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(worker.run(shutdown.clone()));
        Running { shutdown, tasks }
    }

    /// A connection to the config database as its owner.
    pub(crate) async fn config(&self) -> Connection {
        self.config.connect().await
    }

    /// The name of the config database.
    pub(crate) fn config_name(&self) -> &str {
        self.config.name()
    }

    pub(crate) fn artifacts(&self) -> Artifacts {
        Artifacts::new(self.objects.clone(), random())
    }

    pub(crate) fn files(&self) -> UserFiles {
        UserFiles::new(self.objects.clone(), random(), UserFilesOptions::default())
    }

    /// Files of artifacts, whole and unfinished ones.
    pub(crate) fn artifact_files(&self) -> Vec<PathBuf> {
        let objects = self.directory.path().join("objects");
        ["artifacts", ".staging", "staging"]
            .iter()
            .flat_map(|folder| files_below(&objects.join(folder)))
            .collect()
    }

    /// A connection to the target as the role the server is registered with.
    pub(crate) async fn owner(&self) -> Connection {
        self.target.connect_as(&self.login).await
    }

    pub(crate) async fn upload(&self, path: &str, content: Vec<u8>) {
        let path = path.parse().unwrap();
        let mut upload = self
            .files()
            .begin_upload(self.user, &path, UploadOptions::default())
            .await
            .unwrap();
        upload.write(Bytes::from(content)).await.unwrap();
        upload.finish().await.unwrap();
    }

    pub(crate) async fn backup(&self, schemas: &[&str]) -> OperationId {
        let schemas = schemas.iter().map(|schema| name(schema)).collect();
        self.backup_of(BackupSelection::Schemas(schemas), self.server.id)
            .await
    }

    pub(crate) async fn backup_of(&self, selection: BackupSelection, server: ServerId) -> OperationId {
        let request = BackupRequest {
            selection,
            compression: 1,
            large_objects: true,
        };
        let backup = Some(BackupId::generate(&SystemRandom));
        let attempts = BackupRequest::MAX_ATTEMPTS;
        self.enqueue(OperationKind::Backup, server, backup, request.to_json(), attempts)
            .await
    }

    pub(crate) async fn restore(&self, backup: BackupId) -> OperationId {
        let request = RestoreRequest {
            file: None,
            clean: false,
            single_transaction: true,
        };
        self.restore_with(Some(backup), &request).await
    }

    pub(crate) async fn restore_file(&self, file: &str) -> OperationId {
        let request = RestoreRequest {
            file: Some(file.parse().unwrap()),
            clean: false,
            single_transaction: true,
        };
        self.restore_with(None, &request).await
    }

    pub(crate) async fn restore_with(
        &self,
        backup: Option<BackupId>,
        request: &RestoreRequest,
    ) -> OperationId {
        let attempts = RestoreRequest::MAX_ATTEMPTS;
        self.enqueue(
            OperationKind::Restore,
            self.server.id,
            backup,
            request.to_json(),
            attempts,
        )
        .await
    }

    /// A restore of the backup that somebody else asks for.
    pub(crate) async fn restore_as(&self, owner: UserId, backup: BackupId) -> OperationId {
        let request = RestoreRequest {
            file: None,
            clean: false,
            single_transaction: true,
        };
        let new = NewOperation {
            id: OperationId::generate(&SystemRandom),
            owner_id: owner,
            kind: OperationKind::Restore,
            server_id: self.server.id,
            database: name(self.target.name()),
            backup_id: Some(backup),
            request: request.to_json(),
            max_attempts: RestoreRequest::MAX_ATTEMPTS,
            request_id: None,
        };
        self.store.operations().enqueue(&new).await.unwrap();
        new.id
    }

    async fn enqueue(
        &self,
        kind: OperationKind,
        server_id: ServerId,
        backup_id: Option<BackupId>,
        request: serde_json::Value,
        max_attempts: u32,
    ) -> OperationId {
        let new = NewOperation {
            id: OperationId::generate(&SystemRandom),
            owner_id: self.user,
            kind,
            server_id,
            database: name(self.target.name()),
            backup_id,
            request,
            max_attempts,
            request_id: None,
        };
        self.store.operations().enqueue(&new).await.unwrap();
        new.id
    }

    pub(crate) async fn operation(&self, id: OperationId) -> Operation {
        self.store.operations().get(id).await.unwrap().unwrap()
    }

    pub(crate) async fn ended(&self, id: OperationId) -> (Operation, OperationOutcome) {
        eventually(DEADLINE, "the operation ends", async || {
            let operation = self.operation(id).await;
            match operation.state.clone() {
                OperationState::Ended(outcome) => Ok((operation, outcome)),
                state => Err(format!("{state:?} {:?}", operation.progress)),
            }
        })
        .await
    }

    pub(crate) async fn succeeded(&self, id: OperationId) -> Operation {
        let (operation, outcome) = self.ended(id).await;
        assert_eq!(outcome, OperationOutcome::Succeeded, "{}", self.log(id).await);
        operation
    }

    pub(crate) async fn failed(&self, id: OperationId) -> OperationFailure {
        match self.ended(id).await {
            (_, OperationOutcome::Failed(failure)) => failure,
            (operation, outcome) => panic!("{outcome:?}: {operation:?}"),
        }
    }

    pub(crate) async fn log(&self, id: OperationId) -> String {
        let piece = self.store.operations().read_log(id, 0, u32::MAX).await.unwrap();
        String::from_utf8(piece.data).unwrap()
    }

    /// How many backends the operation's attempt has on the target.
    pub(crate) async fn backends(&self, id: OperationId) -> i64 {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1";
        let pattern = format!("pgmoor/op/{id}/%");
        self.cluster
            .connect()
            .await
            .query_one(query, &[&pattern])
            .await
            .unwrap()
            .get(0)
    }

    /// Waits until pg_dump or pg_restore waits for a lock.
    pub(crate) async fn blocked(&self, id: OperationId) {
        eventually(DEADLINE, "the program waits for a lock", async || {
            let query = "SELECT EXISTS (SELECT FROM pg_stat_activity \
                         WHERE application_name LIKE $1 AND wait_event_type = 'Lock')";
            let pattern = format!("pgmoor/op/{id}/%");
            let connection = self.cluster.connect().await;
            let row = connection.query_one(query, &[&pattern]).await.unwrap();
            match row.get::<_, bool>(0) {
                true => Ok(()),
                false => Err(format!("{:?}", self.operation(id).await)),
            }
        })
        .await;
    }

    pub(crate) async fn exists(&self, schema: &str) -> bool {
        let query = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        self.owner()
            .await
            .query_one(query, &[&schema])
            .await
            .unwrap()
            .get(0)
    }

    pub(crate) async fn checksum(&self) -> String {
        let query = "SELECT md5(string_agg(o::text, ',' ORDER BY id)) || (SELECT sum(i) FROM shop.\"Odd.*\") FROM shop.orders o";
        self.owner().await.query_one(query, &[]).await.unwrap().get(0)
    }
}

async fn connect(url: String) -> Store {
    let options = ConnectOptions {
        url: SecretString::from(url),
        max_connections: 4,
        application_name: "worker tests".to_owned(),
    };
    Store::connect(&options).await.unwrap()
}

async fn user(store: &Store) -> UserId {
    let new = NewUser {
        id: UserId::generate(&SystemRandom),
        username: "ann".parse().unwrap(),
        display_name: "Ann".parse().unwrap(),
        password_hash: None,
        administrator: false,
    };
    store.users().create(new).await.unwrap().id
}

/// Registers a server and seals a password for it.
pub(crate) async fn register(
    store: &Store,
    owner: UserId,
    key: &OpeningKey,
    (host, port): (&str, u16),
    login: &Login,
    database: &str,
) -> Server {
    let tls = TlsPolicy::new(SslMode::Disable, "").unwrap();
    let endpoint = Endpoint::new(host, i64::from(port)).unwrap();
    let destination = Destination::new(vec![endpoint], tls).unwrap();
    let id = ServerId::generate(&SystemRandom);
    let new = NewServer {
        id,
        owner_id: owner,
        group: "Servers".parse().unwrap(),
        display_name: id.to_string().parse().unwrap(),
        destination: destination.clone(),
        maintenance_database: name(database),
        username: name(&login.user),
        comment: String::new(),
    };
    let sealer = Sealer::new(key.sealing_key());
    let binding = Binding {
        kind: domain::credential::CredentialKind::Shared,
        server: id,
        username: &login.user,
        destination: &destination,
    };
    let password = SecretString::from(login.password.clone());
    let sealed = sealer.seal(&binding, &password, &SystemRandom).unwrap();
    store
        .sealing_keys()
        .publish(sealed.key.as_str(), &[1; 32])
        .await
        .unwrap();
    let credential = NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: sealed.bytes,
        key_id: sealed.key.as_str().to_owned(),
    };
    store.servers().create(&new, Some(&credential)).await.unwrap()
}

fn random() -> Arc<dyn Random> {
    Arc::new(SystemRandom)
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
