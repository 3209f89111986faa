//! Arrangements: an API instance and a pooler that share a config database, each with the role it has in
//! production.

use std::sync::Arc;
use std::time::Duration;

use auth::{
    AuthError, LoginKeyRing, Logins, LoginsOptions, Passwords, RevocationFeed, StartError, TokenPair,
    TokenVerifier, VerifierOptions,
};
use domain::access::Caller;
use domain::clock::{Clock as _, ManualClock, SystemClock};
use domain::id::UserId;
use domain::random::SystemRandom;
use harness::{Cluster, Database, eventually};
use secrecy::{ExposeSecret as _, SecretString};
use store::users::{NewUser, User, UserChange};
use store::{ConnectOptions, Store, migrate};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// What the design promises for the end of a user, login or token.
pub(crate) const FIVE_SECONDS: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(50);

/// An API instance and a pooler.
pub(crate) struct World {
    pub api_store: Store,
    pub logins: Logins,
    pub api: Arc<TokenVerifier>,
    pub pooler: Arc<TokenVerifier>,
    pub passwords: Passwords,
    /// Both processes' clock. It starts at the real time and stands still.
    pub clock: Arc<ManualClock>,
    pub feeds_stop: CancellationToken,
    pub feeds: JoinSet<()>,
    // Last: it is dropped when nobody uses it any more.
    pub database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
        let cluster = Cluster::shared().await;
        let template = TEMPLATE.get_or_init(|| migrated(cluster)).await;
        Self::on(cluster, cluster.copy_database(template).await).await
    }

    /// On a cluster that the test may stop.
    pub(crate) async fn on_own(cluster: &Cluster) -> Self {
        Self::on(cluster, migrated(cluster).await).await
    }

    async fn on(cluster: &Cluster, database: Database) -> Self {
        let api_store = store_as(cluster, &database, "pgmoor_api").await;
        let pooler_store = store_as(cluster, &database, "pgmoor_pooler").await;
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let notes_use = VerifierOptions {
            notes_use: true,
            ..VerifierOptions::default()
        };
        let api = verifier(&api_store, &clock, notes_use).await;
        let pooler = verifier(&pooler_store, &clock, VerifierOptions::default()).await;
        let passwords = Passwords::new(Arc::new(SystemRandom), 2).unwrap();
        let logins = logins(&api_store, &passwords).await;
        let (feeds_stop, mut feeds) = (CancellationToken::new(), JoinSet::new());
        for verifier in [&api, &pooler] {
            feeds.spawn(RevocationFeed::new(Arc::clone(verifier), INTERVAL).run(feeds_stop.clone()));
        }
        Self {
            api_store,
            logins,
            api,
            pooler,
            passwords,
            clock,
            feeds_stop,
            feeds,
            database,
        }
    }

    /// A user with [`PASSWORD`].
    pub(crate) async fn user(&self, name: &str, administrator: bool) -> User {
        let password_hash = self.passwords.hash(&PASSWORD.into()).await.unwrap();
        let new = NewUser {
            id: UserId::generate(&SystemRandom),
            username: name.parse().unwrap(),
            display_name: name.parse().unwrap(),
            password_hash: Some(password_hash),
            administrator,
        };
        self.api_store.users().create(new).await.unwrap()
    }

    pub(crate) async fn login(&self, name: &str) -> TokenPair {
        self.logins
            .login_with_password(name, &PASSWORD.into())
            .await
            .unwrap()
    }

    pub(crate) async fn set_disabled(&self, user: &User, disabled: bool) {
        let change = UserChange {
            disabled: Some(disabled),
            ..UserChange::default()
        };
        self.api_store.users().update(user.id, change).await.unwrap();
    }

    /// Both processes accept the token.
    pub(crate) async fn accept(&self, token: &SecretString) -> Arc<Caller> {
        let callers = [
            self.api.verify(token.expose_secret()).await.unwrap(),
            self.pooler.verify(token.expose_secret()).await.unwrap(),
        ];
        assert_eq!(callers[0], callers[1]);
        Arc::clone(&callers[0])
    }

    /// Both processes refuse the token, now.
    pub(crate) async fn refuse(&self, token: &str, reason: &AuthError) {
        for verifier in [&self.api, &self.pooler] {
            assert_eq!(verifier.verify(token).await.unwrap_err(), *reason);
        }
    }

    /// Both processes come to refuse the token in the time that is promised.
    pub(crate) async fn come_to_refuse(&self, token: &SecretString, reason: &AuthError) {
        for verifier in [&self.api, &self.pooler] {
            eventually(FIVE_SECONDS, "the token is refused", async || {
                match verifier.verify(token.expose_secret()).await {
                    Err(error) => {
                        assert_eq!(error, *reason);
                        Ok(())
                    }
                    Ok(_) => Err("it is accepted"),
                }
            })
            .await;
        }
    }
}

async fn migrated(cluster: &Cluster) -> Database {
    let database = cluster.create_database().await;
    migrate::run(&database.url().into()).await.unwrap();
    database
}

async fn store_as(cluster: &Cluster, database: &Database, group: &str) -> Store {
    let login = cluster.create_login(&format!("IN ROLE {group}")).await;
    let options = ConnectOptions {
        url: SecretString::from(database.url_as(&login)),
        max_connections: 5,
        application_name: "auth tests".to_owned(),
    };
    Store::connect(&options).await.unwrap()
}

pub(crate) async fn verifier(
    store: &Store,
    clock: &Arc<ManualClock>,
    options: VerifierOptions,
) -> Arc<TokenVerifier> {
    let (store, clock) = (store.clone(), Arc::clone(clock));
    TokenVerifier::start(store, clock, Arc::new(SystemRandom), options)
        .await
        .unwrap()
}

pub(crate) async fn logins(store: &Store, passwords: &Passwords) -> Logins {
    logins_with(store, passwords, None).await.unwrap()
}

/// The same with a login key.
pub(crate) async fn logins_with(
    store: &Store,
    passwords: &Passwords,
    login_key: Option<LoginKeyRing>,
) -> Result<Logins, StartError> {
    let options = LoginsOptions::default();
    let random = Arc::new(SystemRandom);
    Logins::start(store.clone(), random, passwords.clone(), options, login_key).await
}
