//! With which credential it is logged in: everybody's, one's own, or that of what only reads.

use domain::access::{Access, GrantLimits, Principal, ServerPolicy};
use domain::credential::{CredentialKind, CredentialMode};
use domain::id::{CredentialId, GrantId, UserId};
use domain::random::SystemRandom;
use harness::{Login, eventually};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{
    ExecuteRequest, GetTransactionOutcomeRequest, OpenSessionRequest, Session, SessionAccess, SessionMode,
    Transaction,
};
use rpc::server::v1::{self as proto, InspectServerRequest, TestServerRequest};
use sealing::{Binding, Sealer};
use secrecy::SecretString;
use sessions::{Sessions as _, UserToken};
use store::grants::GrantTerms;
use store::servers::{NewCredential, NewRoleCredential};
use tokio::task::JoinSet;
use tonic::Status;

use crate::support::{DEADLINE, Run, World, name, reason, split};

const MODES: [SessionMode; 2] = [SessionMode::Pinned, SessionMode::Auto];

/// Stores a role's password as a credential of the world's server.
pub(crate) async fn set_credential(world: &World, kind: CredentialKind, login: &Login) {
    let servers = world.store.servers();
    let server = servers.get(world.server.id).await.unwrap().unwrap();
    let binding = Binding {
        server: server.id,
        kind,
        username: &login.user,
        destination: &server.destination,
    };
    let password = SecretString::from(login.password.clone());
    let sealed = Sealer::new(world.opening_key.sealing_key()).seal(&binding, &password, &SystemRandom);
    let sealed = sealed.unwrap();
    let new = NewRoleCredential {
        role: login.user.parse().unwrap(),
        credential: NewCredential {
            id: CredentialId::generate(&SystemRandom),
            sealed: sealed.bytes,
            key_id: sealed.key.to_string(),
        },
    };
    let set = servers.set_role_credential(server.id, kind, &new, &server.etag);
    set.await.unwrap();
}

/// A world whose server's role is a superuser, with somebody it is shared with.
struct Shared {
    world: World,
    user: UserId,
    token: UserToken,
}

impl Shared {
    async fn new() -> Self {
        let world = World::new().await;
        let (user, token) = world.other_person().await;
        let terms = GrantTerms {
            access: Access::ReadWrite,
            databases: std::collections::BTreeSet::new(),
            limits: GrantLimits::NONE,
            expire_time: None,
        };
        let (id, member) = (GrantId::generate(&SystemRandom), Principal::User(user));
        let grants = world.store.grants();
        grants.create(id, world.server.id, member, &terms).await.unwrap();
        Self { world, user, token }
    }

    /// Makes a role and stores it as a credential.
    async fn set(&self, kind: CredentialKind) -> Login {
        let login = self.world.cluster.create_login("").await;
        self.set_to(kind, &login).await;
        login
    }

    async fn set_to(&self, kind: CredentialKind, login: &Login) {
        set_credential(&self.world, kind, login).await;
    }

    async fn set_mode(&self, credential_mode: CredentialMode) {
        let policy = ServerPolicy {
            credential_mode,
            ..ServerPolicy::default()
        };
        let servers = self.world.store.servers();
        servers
            .set_policy(self.world.server.id, &policy, None)
            .await
            .unwrap();
    }

    async fn open(
        &self,
        token: &UserToken,
        mode: SessionMode,
        access: SessionAccess,
    ) -> Result<Session, Status> {
        let request = OpenSessionRequest {
            mode: mode.into(),
            access: access.into(),
            ..self.world.open_request()
        };
        let instance = self.world.server.instance_id;
        self.world.pooler.open_session(token, instance, request).await
    }

    /// Who a session says it is.
    async fn current_user(&self, token: &UserToken, session: &Session) -> String {
        let request = ExecuteRequest {
            script: Some(split("SELECT current_user")),
            ..ExecuteRequest::default()
        };
        let events = self.world.pooler.execute(token, name(session), request).await;
        value(&Run::read(events.unwrap()).await)
    }

    /// Who a query without a session says it is.
    async fn queried_as(&self, token: &UserToken, access: SessionAccess) -> Result<String, Status> {
        let request = rpc::pooler::v1::RunScriptRequest {
            server: format!("servers/{}", self.world.server.id),
            script: Some(split("SELECT current_user")),
            access: access.into(),
            ..Default::default()
        };
        let instance = self.world.server.instance_id;
        let events = self.world.pooler.run_script(token, instance, request).await?;
        Ok(value(&Run::read(events).await))
    }

    /// Which role a test of the server finds.
    async fn tested_as(
        &self,
        token: &UserToken,
        credential: proto::CredentialKind,
    ) -> Result<String, Status> {
        let request = TestServerRequest {
            name: format!("servers/{}", self.world.server.id),
            credential: credential.into(),
            ..TestServerRequest::default()
        };
        let instance = self.world.server.instance_id;
        let tested = self.world.pooler.test_server(token, instance, request).await?;
        Ok(tested.role.unwrap().name)
    }

    /// Which role an inspection looks at.
    async fn inspected_as(&self, credential: proto::CredentialKind) -> String {
        let request = InspectServerRequest {
            name: format!("servers/{}", self.world.server.id),
            credential: credential.into(),
            ..InspectServerRequest::default()
        };
        let world = &self.world;
        let inspected = world
            .pooler
            .inspect_server(&world.token, world.server.instance_id, request);
        inspected.await.unwrap().inspection.unwrap().username
    }
}

fn value(run: &Run) -> String {
    let rows = run.rows();
    rows.first()
        .and_then(|row| row[0].clone())
        .unwrap_or_else(|| panic!("{:?}", run.events))
}

#[tokio::test]
async fn each_user_runs_as_their_own_role_and_nobody_as_anothers() {
    let shared = Shared::new().await;
    let world = &shared.world;
    let write = SessionAccess::ReadWrite;
    let of_owner = shared.set(CredentialKind::Personal(world.user)).await.user;
    for mode in MODES {
        let session = shared.open(&world.token, mode, write).await.unwrap();
        assert_eq!(session.username, of_owner);
        assert_eq!(shared.current_user(&world.token, &session).await, of_owner);
        // What the owner has for themselves is not what is shared.
        let session = shared.open(&shared.token, mode, write).await.unwrap();
        assert_eq!(session.username, "postgres");
        assert_eq!(shared.current_user(&shared.token, &session).await, "postgres");
    }
    let of_other = shared.set(CredentialKind::Personal(shared.user)).await.user;
    for (token, role) in [(&world.token, &of_owner), (&shared.token, &of_other)] {
        for mode in MODES {
            let session = shared.open(token, mode, write).await.unwrap();
            assert_eq!(shared.current_user(token, &session).await, *role);
        }
        assert_eq!(shared.queried_as(token, write).await.unwrap(), *role);
        let tested = async |kind| shared.tested_as(token, kind).await.unwrap();
        assert_eq!(tested(proto::CredentialKind::Unspecified).await, *role);
        assert_eq!(tested(proto::CredentialKind::Personal).await, *role);
        assert_eq!(tested(proto::CredentialKind::Shared).await, "postgres");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_change_hands_never_cross_from_one_credential_to_another() {
    let shared = std::sync::Arc::new(Shared::new().await);
    let world = &shared.world;
    world.set_budget(4, 1).await;
    let of_owner = shared.set(CredentialKind::Personal(world.user)).await.user;
    let reader = shared.set(CredentialKind::ReadOnly).await.user;
    let mut runs = JoinSet::new();
    for number in 0..9 {
        let shared = std::sync::Arc::clone(&shared);
        let (token, access, role) = match number % 3 {
            0 => (world.token.clone(), SessionAccess::ReadWrite, of_owner.clone()),
            1 => (world.token.clone(), SessionAccess::ReadOnly, reader.clone()),
            _ => (
                shared.token.clone(),
                SessionAccess::ReadWrite,
                "postgres".to_owned(),
            ),
        };
        runs.spawn(async move {
            let session = shared.open(&token, SessionMode::Auto, access).await.unwrap();
            for _ in 0..8 {
                assert_eq!(shared.current_user(&token, &session).await, role);
                assert_eq!(shared.queried_as(&token, access).await.unwrap(), role);
            }
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

#[tokio::test]
async fn what_only_reads_runs_as_the_read_only_role_whoever_asks() {
    let shared = Shared::new().await;
    let world = &shared.world;
    let (read, write) = (SessionAccess::ReadOnly, SessionAccess::ReadWrite);
    // Before there is one it is the role that everything else runs as.
    assert_eq!(shared.queried_as(&world.token, read).await.unwrap(), "postgres");
    let reader = shared.set(CredentialKind::ReadOnly).await.user;
    shared.set(CredentialKind::Personal(shared.user)).await;
    for token in [&world.token, &shared.token] {
        for mode in MODES {
            let session = shared.open(token, mode, read).await.unwrap();
            assert_eq!(session.username, reader);
            assert!(session.enforcement.is_some());
            assert_eq!(shared.current_user(token, &session).await, reader);
        }
        assert_eq!(shared.queried_as(token, read).await.unwrap(), reader);
    }
    for mode in MODES {
        let session = shared.open(&world.token, mode, write).await.unwrap();
        assert_eq!(shared.current_user(&world.token, &session).await, "postgres");
    }
    // What is looked at is the role that such sessions have.
    assert_eq!(
        shared.inspected_as(proto::CredentialKind::Unspecified).await,
        reader
    );
    assert_eq!(
        shared.inspected_as(proto::CredentialKind::Shared).await,
        "postgres"
    );
}

#[tokio::test]
async fn server_for_personal_credentials_refuses_who_has_none() {
    let shared = Shared::new().await;
    let world = &shared.world;
    let own = shared.set(CredentialKind::Personal(world.user)).await.user;
    shared.set(CredentialKind::ReadOnly).await;
    shared.set_mode(CredentialMode::PersonalOnly).await;
    let missing = ErrorReason::PersonalCredentialMissing;
    let unspecified = proto::CredentialKind::Unspecified;
    for access in [SessionAccess::ReadOnly, SessionAccess::ReadWrite] {
        for mode in MODES {
            let refused = shared.open(&shared.token, mode, access).await.unwrap_err();
            assert_eq!(reason(&refused), missing);
            assert!(refused.message().contains("personal credentials only"));
        }
        let refused = shared.queried_as(&shared.token, access).await.unwrap_err();
        assert_eq!(reason(&refused), missing);
    }
    let refused = shared.tested_as(&shared.token, unspecified).await.unwrap_err();
    assert_eq!(reason(&refused), missing);
    let request = GetTransactionOutcomeRequest {
        server: format!("servers/{}", world.server.id),
        transaction: Some(Transaction {
            xid: 3,
            system_identifier: "1".to_owned(),
            timeline: 1,
            stats_reset: Some(prost_types::Timestamp::default()),
            database: world.target.name().to_owned(),
        }),
    };
    let asked = world
        .pooler
        .get_transaction_outcome(&shared.token, world.server.instance_id, request);
    assert_eq!(reason(&asked.await.unwrap_err()), missing);
    // Whoever has one goes on.
    assert_eq!(shared.tested_as(&world.token, unspecified).await.unwrap(), own);
    let theirs = shared.set(CredentialKind::Personal(shared.user)).await.user;
    assert_eq!(
        shared.tested_as(&shared.token, unspecified).await.unwrap(),
        theirs
    );
    // The others are named by those who may set them, and by nobody else.
    for kind in [proto::CredentialKind::Shared, proto::CredentialKind::ReadOnly] {
        let refused = shared.tested_as(&shared.token, kind).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::PermissionMissing);
        assert!(shared.tested_as(&world.token, kind).await.is_ok());
    }
}

#[tokio::test]
async fn no_credential_opens_once_the_server_points_elsewhere() {
    let shared = Shared::new().await;
    let world = &shared.world;
    for kind in [CredentialKind::ReadOnly, CredentialKind::Personal(world.user)] {
        shared.set(kind).await;
    }
    // The row is changed behind the API's back, as somebody with the config database could.
    let sql = "UPDATE pgmoor.servers SET endpoints = jsonb_set(endpoints, '{0,host}', '\"127.0.0.2\"')";
    world.config().execute(sql).await;
    for (token, access) in [
        (&world.token, SessionAccess::ReadWrite),
        (&world.token, SessionAccess::ReadOnly),
        (&shared.token, SessionAccess::ReadWrite),
        (&shared.token, SessionAccess::ReadOnly),
    ] {
        let refused = shared.open(token, SessionMode::Pinned, access).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::CredentialMissing);
        let refused = shared.queried_as(token, access).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::CredentialMissing);
    }
    // Nor does that of one user for another.
    let sql = "UPDATE pgmoor.servers SET endpoints = jsonb_set(endpoints, '{0,host}', '\"127.0.0.1\"')";
    world.config().execute(sql).await;
    assert_ne!(
        shared
            .queried_as(&world.token, SessionAccess::ReadWrite)
            .await
            .unwrap(),
        "postgres"
    );
    let stolen = format!(
        "UPDATE pgmoor.role_credentials SET user_id = '{}' WHERE kind = 'personal'",
        shared.user.as_uuid()
    );
    world.config().execute(&stolen).await;
    let refused = shared
        .queried_as(&shared.token, SessionAccess::ReadWrite)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::CredentialMissing);
}

#[tokio::test]
async fn session_logs_in_with_what_its_user_has_when_a_connection_is_opened() {
    let shared = Shared::new().await;
    let world = &shared.world;
    let write = SessionAccess::ReadWrite;
    let pinned = shared
        .open(&world.token, SessionMode::Pinned, write)
        .await
        .unwrap();
    let auto = shared.open(&world.token, SessionMode::Auto, write).await.unwrap();
    let reading = shared
        .open(&world.token, SessionMode::Auto, SessionAccess::ReadOnly)
        .await
        .unwrap();
    assert_eq!((&*auto.username, &*reading.username), ("postgres", "postgres"));
    let own = shared.set(CredentialKind::Personal(world.user)).await.user;
    let reader = shared.set(CredentialKind::ReadOnly).await.user;
    // What has a connection keeps it.
    assert_eq!(shared.current_user(&world.token, &pinned).await, "postgres");
    assert_eq!(shared.current_user(&world.token, &auto).await, own);
    assert_eq!(shared.current_user(&world.token, &reading).await, reader);
    assert_eq!(world.describe(name(&auto)).await.username, own);
    assert_eq!(world.describe(name(&reading)).await.username, reader);

    let servers = world.store.servers();
    let kind = CredentialKind::Personal(world.user);
    let deleted = servers.delete_role_credential(world.server.id, kind).await;
    assert!(deleted.unwrap().is_some());
    assert_eq!(shared.current_user(&world.token, &auto).await, own);
    let next = shared.open(&world.token, SessionMode::Auto, write).await.unwrap();
    assert_eq!(shared.current_user(&world.token, &next).await, "postgres");
}

#[tokio::test]
async fn wrong_password_of_one_user_stands_in_nobody_elses_way() {
    let shared = Shared::new().await;
    let world = &shared.world;
    let mut login = world.cluster.create_login("").await;
    login.password = "wrong-secret".to_owned();
    shared.set_to(CredentialKind::Personal(world.user), &login).await;
    for _ in 0..3 {
        let refused = shared
            .queried_as(&world.token, SessionAccess::ReadWrite)
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::TargetAuthenticationFailed);
        assert!(!format!("{refused:?}").contains("wrong-secret"));
        let other = shared.queried_as(&shared.token, SessionAccess::ReadWrite).await;
        assert_eq!(other.unwrap(), "postgres");
    }
}

/// Leaves a connection that has ended, of a pooler that nobody knows any more, with the password of the world's server.
async fn leave_connection(world: &World) {
    let left = format!(
        "INSERT INTO pgmoor.pooler_connections (instance_id, incarnation, backend_pid, backend_start, server_id) \
         VALUES ('{}', gen_random_uuid(), 2147483647, now(), '{}')",
        world.server.instance_id, world.server.id
    );
    world.config().execute(&left).await;
}

/// How many connections are left of those.
async fn connections_left(world: &World) -> i64 {
    let config = world.config().connect().await;
    let count = "SELECT count(*) FROM pgmoor.pooler_connections WHERE backend_pid = 2147483647";
    config.query_one(count, &[]).await.unwrap().get(0)
}

async fn connection_is_seen_to_be_gone(world: &World) {
    eventually(DEADLINE, "it is seen to be gone", async || {
        let left = connections_left(world).await;
        (left == 0).then_some(()).ok_or(left)
    })
    .await;
}

/// A server on an instance that the pooler owns, which has no password of its own any more.
async fn without_password() -> Shared {
    let shared = Shared::new().await;
    let world = &shared.world;
    world.open().await;
    let servers = world.store.servers();
    let server = servers.get(world.server.id).await.unwrap().unwrap();
    let forgotten = servers.set_credential(server.id, None, &server.etag).await;
    forgotten.unwrap();
    shared
}

#[tokio::test]
async fn connections_of_a_dead_pooler_are_seen_to_be_gone_with_whatever_credential_there_is() {
    let shared = without_password().await;
    let (world, servers) = (&shared.world, shared.world.store.servers());
    for kind in [CredentialKind::Personal(shared.user), CredentialKind::ReadOnly] {
        shared.set(kind).await;
        leave_connection(world).await;
        connection_is_seen_to_be_gone(world).await;
        servers
            .delete_role_credential(world.server.id, kind)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn refused_password_is_not_tried_again_and_that_of_a_disabled_user_never() {
    let shared = without_password().await;
    let world = &shared.world;
    let disable = async |disabled: bool| {
        let user = shared.user.as_uuid();
        let sql = format!("UPDATE pgmoor.users SET disabled = {disabled} WHERE id = '{user}'");
        world.config().execute(&sql).await;
    };
    disable(true).await;
    shared.set(CredentialKind::Personal(shared.user)).await;
    let mut wrong = world.cluster.create_login("").await;
    wrong.password = "wrong-secret".to_owned();
    shared.set_to(CredentialKind::ReadOnly, &wrong).await;
    let refusal = format!("password authentication failed for user \"{}\"", wrong.user);
    let refusals = || world.cluster.log_text().matches(&refusal).count();
    leave_connection(world).await;
    eventually(DEADLINE, "the server refuses the password", async || {
        let refused = refusals();
        (refused > 0).then_some(()).ok_or(refused)
    })
    .await;
    assert_eq!(connections_left(world).await, 1);
    // A personal one takes the place of what is of no use, once its user may do anything.
    disable(false).await;
    connection_is_seen_to_be_gone(world).await;
    // By then the looks for what is left came round again, and later than what fails for other reasons is tried again.
    assert_eq!(refusals(), 1);
    // The same password set anew is another credential.
    disable(true).await;
    shared.set_to(CredentialKind::ReadOnly, &wrong).await;
    leave_connection(world).await;
    eventually(DEADLINE, "the server is asked again", async || {
        let refused = refusals();
        (refused > 1).then_some(()).ok_or(refused)
    })
    .await;
}
