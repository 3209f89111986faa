//! Arrangements: a pooler on a config database of its own, with one user and one registered server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use auth::{Logins, LoginsOptions, Passwords, RevocationFeed, TokenVerifier, VerifierOptions};
use domain::clock::SystemClock;
use domain::egress::EgressPolicy;
use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
use domain::id::{CredentialId, ServerId, UserId};
use domain::limits::Limit;
use domain::random::SystemRandom;
use domain::session::SessionName;
use futures::StreamExt as _;
use harness::{Cluster, Database, Login};
use pooler::{Pooler, PoolerOptions};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    ExecuteRequest, ExecutionEvent, ExecutionFinished, ExecutionOutcome, OpenSessionRequest, Script,
    ScriptMode, Session, SessionMode, SqlError, value,
};
use sealing::{Binding, Opener, OpeningKey, Sealer};
use secrecy::SecretString;
use sessions::{EventStream, Sessions as _, UserToken};
use store::instances::InstanceChange;
use store::servers::{NewCredential, NewServer, Server};
use store::users::NewUser;
use store::{ConnectOptions, Store, migrate};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A pooler and what it needs.
pub(crate) struct World {
    pub(crate) pooler: Pooler,
    /// A store that may do everything.
    pub(crate) store: Store,
    pub(crate) cluster: &'static Cluster,
    pub(crate) target: Database,
    pub(crate) server: Server,
    pub(crate) token: UserToken,
    pub(crate) user: UserId,
    pub(crate) opening_key: OpeningKey,
    pub(crate) logins: Logins,
    _feed: JoinSet<()>,
    // Held for its drop. Last: nobody uses it any more then.
    config: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let login = cluster.endpoint().superuser();
        Self::with(cluster, &login, SslMode::Disable).await
    }

    /// A world whose server logs in as `login`.
    pub(crate) async fn with(cluster: &'static Cluster, login: &Login, tls: SslMode) -> Self {
        static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
        let shared = Cluster::shared().await;
        let template = TEMPLATE
            .get_or_init(|| async {
                let template = shared.create_database().await;
                migrate::run(&template.url().into()).await.unwrap();
                template
            })
            .await;
        let config = shared.copy_database(template).await;
        let target = cluster.create_database().await;
        let store = connect_store(&config).await;
        let passwords = Passwords::new(Arc::new(SystemRandom), 1).unwrap();
        let logins = Logins::start(
            store.clone(),
            Arc::new(SystemRandom),
            passwords,
            LoginsOptions::default(),
            None,
        )
        .await
        .unwrap();
        let opening_key = OpeningKey::generate(&SystemRandom);
        let sealing_key = opening_key.sealing_key();
        store
            .sealing_keys()
            .publish(sealing_key.id().as_str(), &sealing_key.to_bytes())
            .await
            .unwrap();
        let (user, token) = user(&store, &logins, "alice").await;
        let verifier = verifier(&store).await;
        let mut feed = JoinSet::new();
        let interval = Duration::from_millis(200);
        feed.spawn(RevocationFeed::new(Arc::clone(&verifier), interval).run(CancellationToken::new()));
        let pooler = start_pooler(&store, cluster, &opening_key, verifier).await;
        let endpoint = Endpoint::new("127.0.0.1", cluster.port().into()).unwrap();
        let server = register(
            &store,
            &opening_key,
            user,
            "main",
            target.name(),
            login,
            endpoint,
            tls,
        )
        .await;
        Self {
            pooler,
            cluster,
            server,
            token,
            user,
            opening_key,
            logins,
            _feed: feed,
            store,
            target,
            config,
        }
    }

    /// Registers a server with its password.
    pub(crate) async fn register(&self, name: &str, database: &str, login: &Login, tls: SslMode) -> Server {
        let endpoint = Endpoint::new("127.0.0.1", self.cluster.port().into()).unwrap();
        register(
            &self.store,
            &self.opening_key,
            self.user,
            name,
            database,
            login,
            endpoint,
            tls,
        )
        .await
    }

    pub(crate) fn config(&self) -> &Database {
        &self.config
    }

    /// Another user with a token.
    pub(crate) async fn other_user(&self) -> UserToken {
        self.other_person().await.1
    }

    pub(crate) async fn other_person(&self) -> (UserId, UserToken) {
        user(&self.store, &self.logins, "mallory").await
    }

    pub(crate) async fn set_budget(&self, connections: u16, reserved: u16) {
        let change = InstanceChange {
            max_connections: Some(connections),
            reserved_connections: Some(reserved),
            ..InstanceChange::default()
        };
        self.change(change).await;
    }

    /// Sets limits of the instance, which hold for sessions opened from now on, and soon for all.
    pub(crate) async fn set_limits(&self, limits: &[(Limit, u64)]) {
        let limits = limits.iter().map(|(limit, value)| (*limit, Some(*value)));
        let change = InstanceChange {
            limits: limits.collect(),
            ..InstanceChange::default()
        };
        self.change(change).await;
    }

    async fn change(&self, change: InstanceChange) {
        let instances = self.store.instances();
        instances.update(self.server.instance_id, change).await.unwrap();
    }

    pub(crate) fn open_request(&self) -> OpenSessionRequest {
        OpenSessionRequest {
            server: format!("servers/{}", self.server.id),
            ..Default::default()
        }
    }

    pub(crate) async fn try_open(&self, request: OpenSessionRequest) -> Result<Session, Status> {
        let opening = self
            .pooler
            .open_session(&self.token, self.server.instance_id, request);
        tokio::time::timeout(DEADLINE, opening)
            .await
            .expect("opening takes too long")
    }

    /// A session on the world's server.
    pub(crate) async fn open(&self) -> SessionName {
        name(&self.try_open(self.open_request()).await.unwrap())
    }

    /// A session that shares backends.
    pub(crate) async fn open_auto(&self) -> SessionName {
        name(&self.try_open(self.auto_request()).await.unwrap())
    }

    pub(crate) fn auto_request(&self) -> OpenSessionRequest {
        OpenSessionRequest {
            mode: SessionMode::Auto.into(),
            ..self.open_request()
        }
    }

    pub(crate) async fn describe(&self, session: SessionName) -> Session {
        self.pooler.get_session(&self.token, session).await.unwrap()
    }

    pub(crate) async fn try_execute(
        &self,
        session: SessionName,
        request: ExecuteRequest,
    ) -> Result<EventStream, Status> {
        self.pooler.execute(&self.token, session, request).await
    }

    /// Runs a script to its end.
    pub(crate) async fn execute(&self, session: SessionName, script: Script) -> Run {
        let request = ExecuteRequest {
            script: Some(script),
            ..Default::default()
        };
        Run::read(self.try_execute(session, request).await.unwrap()).await
    }

    /// Runs SQL statement by statement.
    pub(crate) async fn run(&self, session: SessionName, sql: &str) -> Run {
        self.execute(session, split(sql)).await
    }

    /// The only value of a query.
    pub(crate) async fn value(&self, session: SessionName, sql: &str) -> String {
        let run = self.run(session, sql).await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{:?}", run.events);
        run.rows()[0][0].clone().unwrap()
    }
}

pub(crate) fn name(session: &Session) -> SessionName {
    session.name.parse().unwrap()
}

pub(crate) fn split(sql: &str) -> Script {
    Script {
        sql: sql.to_owned(),
        mode: ScriptMode::Split.into(),
        ..Default::default()
    }
}

pub(crate) fn one_message(sql: &str) -> Script {
    Script {
        mode: ScriptMode::OneMessage.into(),
        ..split(sql)
    }
}

pub(crate) fn reason(status: &Status) -> ErrorReason {
    rpc::error::reason(status).unwrap_or_else(|| panic!("no reason in {status:?}"))
}

/// What an execution said.
pub(crate) struct Run {
    pub(crate) events: Vec<ExecutionEvent>,
    pub(crate) messages: usize,
}

impl Run {
    pub(crate) async fn read(stream: EventStream) -> Self {
        Self::read_from(stream, 1).await
    }

    /// Reads events of which the first has that number.
    pub(crate) async fn read_from(mut stream: EventStream, first: i64) -> Self {
        let (mut events, mut messages) = (Vec::new(), 0);
        while let Some(message) = tokio::time::timeout(DEADLINE, stream.next())
            .await
            .expect("no event in time")
        {
            events.extend(message.unwrap().events().unwrap());
            messages += 1;
        }
        let numbered: Vec<i64> = events
            .iter()
            .map(|event| event.sequence)
            .filter(|sequence| *sequence != 0)
            .collect();
        assert!(
            numbered
                .iter()
                .zip(first..)
                .all(|(sequence, place)| *sequence == place),
            "gaps: {events:?}"
        );
        Self { events, messages }
    }

    /// The number of the event after the last.
    pub(crate) fn next_number(&self) -> i64 {
        self.events.last().map_or(1, |last| last.sequence + 1)
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.events.iter().filter_map(|event| event.kind.as_ref())
    }

    pub(crate) fn finished(&self) -> &ExecutionFinished {
        match self.kinds().last() {
            Some(Kind::Finished(finished)) => finished,
            other => panic!("the last event is {other:?}"),
        }
    }

    pub(crate) fn outcome(&self) -> ExecutionOutcome {
        self.finished().outcome()
    }

    pub(crate) fn tags(&self) -> Vec<&str> {
        let tags = self.kinds().filter_map(|kind| match kind {
            Kind::StatementCompleted(completed) => Some(completed.command_tag.as_str()),
            _ => None,
        });
        tags.collect()
    }

    pub(crate) fn errors(&self) -> Vec<&SqlError> {
        let errors = self.kinds().filter_map(|kind| match kind {
            Kind::SqlError(error) => Some(error),
            _ => None,
        });
        errors.collect()
    }

    pub(crate) fn sqlstates(&self) -> Vec<&str> {
        self.errors()
            .iter()
            .map(|error| error.message.as_ref().unwrap().sqlstate.as_str())
            .collect()
    }

    /// All rows, of whichever statement. NULL is `None`.
    pub(crate) fn rows(&self) -> Vec<Vec<Option<String>>> {
        let batches = self.kinds().filter_map(|kind| match kind {
            Kind::Rows(batch) => Some(&batch.rows),
            _ => None,
        });
        let text = |value: &rpc::query::v1::Value| match value.kind.as_ref().unwrap() {
            value::Kind::Text(text) => Some(text.clone()),
            value::Kind::Null(_) => None,
            other => panic!("{other:?}"),
        };
        batches
            .flatten()
            .map(|row| row.values.iter().map(text).collect())
            .collect()
    }
}

async fn user(store: &Store, logins: &Logins, name: &str) -> (UserId, UserToken) {
    let new = NewUser {
        id: UserId::generate(&SystemRandom),
        username: name.parse().unwrap(),
        display_name: name.parse().unwrap(),
        password_hash: None,
        administrator: false,
    };
    let user = store.users().create(new).await.unwrap();
    let grant = logins
        .create_api_token(user.id, "test".parse().unwrap(), None, None)
        .await
        .unwrap();
    (user.id, UserToken(grant.token))
}

async fn connect_store(database: &Database) -> Store {
    let options = ConnectOptions {
        url: SecretString::from(database.url()),
        max_connections: 2,
        application_name: "pooler tests".to_owned(),
    };
    Store::connect(&options).await.unwrap()
}

pub(crate) async fn verifier(store: &Store) -> Arc<TokenVerifier> {
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    TokenVerifier::start(store.clone(), clock, random, VerifierOptions::default())
        .await
        .unwrap()
}

/// A pooler that may connect to the cluster.
pub(crate) async fn start_pooler(
    store: &Store,
    cluster: &Cluster,
    key: &OpeningKey,
    verifier: Arc<TokenVerifier>,
) -> Pooler {
    start_pooler_for(store, &[cluster.port()], key, verifier).await
}

/// A pooler that may connect to these ports.
pub(crate) async fn start_pooler_for(
    store: &Store,
    ports: &[u16],
    key: &OpeningKey,
    verifier: Arc<TokenVerifier>,
) -> Pooler {
    Pooler::start(
        store.clone(),
        verifier,
        Opener::new([key.clone()]),
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
        PoolerOptions {
            // Tests count connections: nobody looks at roles unasked.
            inspection_round: Duration::from_hours(24),
            ..PoolerOptions::new("127.0.0.1:1".to_owned(), egress(ports))
        },
    )
    .await
    .unwrap()
}

/// Where a pooler may connect to: these ports of this machine.
pub(crate) fn egress(ports: &[u16]) -> EgressPolicy {
    EgressPolicy {
        rules: vec!["127.0.0.0/8".parse().unwrap(), "localhost".parse().unwrap()],
        loopback_ports: BTreeSet::from_iter(ports.iter().copied()),
        config_database: Vec::new(),
    }
}

#[allow(clippy::too_many_arguments, reason = "each is a part of one registration")]
pub(crate) async fn register(
    store: &Store,
    key: &OpeningKey,
    user: UserId,
    name: &str,
    database: &str,
    login: &Login,
    endpoint: Endpoint,
    tls: SslMode,
) -> Server {
    let destination = Destination::new(vec![endpoint], TlsPolicy::new(tls, "").unwrap()).unwrap();
    let new = NewServer {
        id: ServerId::generate(&SystemRandom),
        owner_id: user,
        group: "Servers".parse().unwrap(),
        display_name: name.parse().unwrap(),
        destination,
        maintenance_database: database.parse().unwrap(),
        username: login.user.parse().unwrap(),
        comment: String::new(),
    };
    let binding = Binding {
        kind: domain::credential::CredentialKind::Shared,
        server: new.id,
        username: &login.user,
        destination: &new.destination,
    };
    let password = SecretString::from(login.password.clone());
    let sealed = Sealer::new(key.sealing_key())
        .seal(&binding, &password, &SystemRandom)
        .unwrap();
    let credential = NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: sealed.bytes,
        key_id: sealed.key.to_string(),
    };
    store.servers().create(&new, Some(&credential)).await.unwrap()
}
