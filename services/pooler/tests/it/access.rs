//! What users may do with servers of others, decided by the pooler itself; and what becomes of what runs when they may not
//! any more.

use std::time::Duration;

use domain::access::{Access, GrantLimits, Principal, Role, RoleName, Scope, ServerPolicy, Tenancy};
use domain::clock::{Clock as _, SystemClock};
use domain::id::{GrantId, GroupId, RoleBindingId, UserId};
use domain::limits::Limit;
use domain::name::Identifier;
use domain::random::SystemRandom;
use domain::session::SessionName;
use futures::StreamExt as _;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecuteRequest, OnDisconnect, OpenSessionRequest, Session, SessionAccess, SessionMode};
use rpc::server::v1::TestServerRequest;
use sessions::{Sessions as _, UserToken};
use store::grants::{GrantTerms, ServerGrant};
use store::role_bindings::NewRoleBinding;
use store::servers::ServerChange;
use store::users::UserChange;
use tonic::{Code, Status};

use crate::cancelling::request;
use crate::support::{DEADLINE, Run, World, name, reason, split};

/// What users are promised.
const WITHIN: Duration = Duration::from_secs(5);

fn terms(access: Access) -> GrantTerms {
    GrantTerms {
        access,
        databases: std::collections::BTreeSet::new(),
        limits: GrantLimits::NONE,
        expire_time: None,
    }
}

/// A world with somebody who owns nothing.
struct Shared {
    world: World,
    user: UserId,
    token: UserToken,
}

impl Shared {
    async fn new() -> Self {
        let world = World::new().await;
        let (user, token) = world.other_person().await;
        Self { world, user, token }
    }

    async fn grant(&self, terms: &GrantTerms) -> ServerGrant {
        self.grant_to(Principal::User(self.user), terms).await
    }

    async fn grant_to(&self, member: Principal, terms: &GrantTerms) -> ServerGrant {
        let id = GrantId::generate(&SystemRandom);
        let grants = self.world.store.grants();
        grants
            .create(id, self.world.server.id, member, terms)
            .await
            .unwrap()
    }

    async fn revoke(&self, grant: &ServerGrant) {
        let grants = self.world.store.grants();
        grants.delete(grant.server, grant.id, None).await.unwrap();
    }

    async fn set_policy(&self, policy: &ServerPolicy) {
        let servers = self.world.store.servers();
        servers
            .set_policy(self.world.server.id, policy, None)
            .await
            .unwrap();
    }

    async fn bind(&self, role: Role, scope: Scope) {
        let new = NewRoleBinding {
            id: RoleBindingId::generate(&SystemRandom),
            role: RoleName::BuiltIn(role),
            member: Principal::User(self.user),
            scope,
        };
        self.world.store.role_bindings().create(&new).await.unwrap();
    }

    async fn open(&self, request: OpenSessionRequest) -> Result<Session, Status> {
        let instance = self.world.server.instance_id;
        self.world
            .pooler
            .open_session(&self.token, instance, request)
            .await
    }

    async fn open_any(&self) -> Result<Session, Status> {
        self.open(self.world.auto_request()).await
    }

    async fn test(&self) -> Result<(), Status> {
        let request = TestServerRequest {
            name: format!("servers/{}", self.world.server.id),
            ..TestServerRequest::default()
        };
        let instance = self.world.server.instance_id;
        let tested = self.world.pooler.test_server(&self.token, instance, request);
        tested.await.map(drop)
    }

    async fn ends_soon(&self, token: &UserToken, session: SessionName) {
        eventually(WITHIN, "the session ends", async || {
            let told = self.world.pooler.get_session(token, session).await;
            let status = told.err().ok_or("it lives")?;
            let cause = cause(&status);
            (cause == "access_revoked").then_some(()).ok_or(cause)
        })
        .await;
    }
}

fn cause(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info();
    let cause = info.and_then(|info| info.metadata.get("cause").cloned());
    cause.unwrap_or_else(|| format!("{status:?}"))
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, why: ErrorReason) {
    let status = outcome.expect_err("it must be refused");
    assert_eq!((status.code(), reason(&status)), (code, why), "{status:?}");
}

#[tokio::test]
async fn grant_gives_use_of_a_server_and_nothing_before_it_does() {
    let shared = Shared::new().await;
    assert_refused(
        shared.open_any().await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    assert_refused(shared.test().await, Code::NotFound, ErrorReason::ResourceNotFound);
    let grant = shared.grant(&terms(Access::ReadWrite)).await;
    let session = shared.open_any().await.unwrap();
    assert!(session.policy_revision > 0);
    shared.test().await.unwrap();
    let sql = ExecuteRequest {
        script: Some(split("SELECT 42")),
        ..ExecuteRequest::default()
    };
    let run = shared.world.pooler.execute(&shared.token, name(&session), sql);
    assert_eq!(
        Run::read(run.await.unwrap()).await.rows()[0][0].as_deref(),
        Some("42")
    );
    // It is the grantee's session, not the server's owner's.
    let told = shared
        .world
        .pooler
        .get_session(&shared.world.token, name(&session));
    assert_refused(told.await, Code::NotFound, ErrorReason::ResourceNotFound);
    shared.revoke(&grant).await;
    assert_refused(
        shared.open_any().await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
}

#[tokio::test]
async fn who_may_only_read_gets_sessions_that_only_read_whatever_they_ask_for() {
    let shared = Shared::new().await;
    shared.grant(&terms(Access::ReadOnly)).await;
    let granted = shared.open_any().await.unwrap();
    assert_eq!(granted.access(), SessionAccess::ReadOnly);
    // The ceiling is the owner's too.
    shared
        .set_policy(&ServerPolicy::production(Tenancy::Single))
        .await;
    let wish = OpenSessionRequest {
        access: SessionAccess::ReadWrite.into(),
        ..shared.world.auto_request()
    };
    let own = shared.world.try_open(wish.clone()).await.unwrap();
    assert_eq!(own.access(), SessionAccess::ReadOnly);
    shared.set_policy(&ServerPolicy::staging(Tenancy::Single)).await;
    let own = shared.world.try_open(wish).await.unwrap();
    assert_eq!(own.access(), SessionAccess::ReadWrite);
}

#[tokio::test]
async fn database_that_policy_or_grant_leaves_out_is_refused() {
    let shared = Shared::new().await;
    let target: Identifier = shared.world.target.name().parse().unwrap();
    let elsewhere = GrantTerms {
        databases: ["postgres".parse().unwrap()].into(),
        ..terms(Access::ReadWrite)
    };
    shared.grant(&elsewhere).await;
    assert_refused(
        shared.open_any().await,
        Code::PermissionDenied,
        ErrorReason::DatabaseNotAllowed,
    );
    let there = OpenSessionRequest {
        database: "postgres".to_owned(),
        ..shared.world.auto_request()
    };
    shared.open(there.clone()).await.unwrap();
    let policy = ServerPolicy::staging(Tenancy::Multi {
        databases: [target].into(),
    });
    shared.set_policy(&policy).await;
    assert_refused(
        shared.open(there.clone()).await,
        Code::PermissionDenied,
        ErrorReason::DatabaseNotAllowed,
    );
    let own = shared.world.try_open(there).await;
    assert_refused(own, Code::PermissionDenied, ErrorReason::DatabaseNotAllowed);
    shared.world.open_auto().await;
}

#[tokio::test]
async fn role_that_sees_does_not_use() {
    let shared = Shared::new().await;
    shared
        .bind(Role::Auditor, Scope::Server(shared.world.server.id))
        .await;
    assert_refused(
        shared.open_any().await,
        Code::PermissionDenied,
        ErrorReason::PermissionMissing,
    );
    let group = Scope::ServerGroup {
        owner: Principal::User(shared.world.user),
        group: "Servers".parse().unwrap(),
    };
    shared.bind(Role::Member, group).await;
    shared.open_any().await.unwrap();
}

#[tokio::test]
async fn grant_to_a_group_is_its_members() {
    let shared = Shared::new().await;
    let id = GroupId::generate(&SystemRandom);
    let groups = shared.world.store.groups();
    groups.create(id, &"team".parse().unwrap()).await.unwrap();
    shared
        .grant_to(Principal::Group(id), &terms(Access::ReadWrite))
        .await;
    assert_refused(
        shared.open_any().await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    groups.add_member(id, shared.user, "manual").await.unwrap();
    groups.add_member(id, shared.user, "oidc:corp").await.unwrap();
    let session = name(&shared.open_any().await.unwrap());
    // They are in it while anybody says so.
    groups.remove_member(id, shared.user, "manual").await.unwrap();
    shared.open_any().await.unwrap();
    groups.remove_member(id, shared.user, "oidc:corp").await.unwrap();
    shared.ends_soon(&shared.token, session).await;
}

#[tokio::test]
async fn session_on_a_server_that_is_gone_ends_with_the_membership_by_which_it_was_owned() {
    let shared = Shared::new().await;
    let (world, owner) = (&shared.world, shared.world.server.owner_id);
    let (groups, id) = (world.store.groups(), GroupId::generate(&SystemRandom));
    groups.create(id, &"team".parse().unwrap()).await.unwrap();
    groups.add_member(id, owner, "manual").await.unwrap();
    let change = ServerChange {
        owner: Some(Principal::Group(id)),
        ..ServerChange::default()
    };
    let servers = world.store.servers();
    servers.update(world.server.id, &change).await.unwrap();
    shared.grant(&terms(Access::ReadWrite)).await;
    let members = name(&world.try_open(world.open_request()).await.unwrap());
    let others = name(&shared.open_any().await.unwrap());

    servers.delete(world.server.id, None).await.unwrap();
    shared.ends_soon(&shared.token, others).await;
    // What a member of the owner has open goes on.
    assert_eq!(world.value(members, "SELECT 1").await, "1");
    groups.remove_member(id, owner, "manual").await.unwrap();
    shared.ends_soon(&world.token, members).await;
}

#[tokio::test]
async fn revoked_grant_ends_sessions_and_what_runs_in_them() {
    let shared = Shared::new().await;
    let grant = shared.grant(&terms(Access::ReadWrite)).await;
    let pinned = shared.open(shared.world.open_request()).await.unwrap();
    assert_eq!(pinned.mode(), SessionMode::Pinned);
    let idle = name(&shared.open_any().await.unwrap());
    let own = shared.world.open_auto().await;
    let sleep = || rpc::query::v1::Script {
        sql: "SELECT pg_sleep(300)".to_owned(),
        ..split("")
    };
    let request = ExecuteRequest {
        script: Some(sleep()),
        ..ExecuteRequest::default()
    };
    let pooler = &shared.world.pooler;
    let mut running = pooler
        .execute(&shared.token, name(&pinned), request)
        .await
        .unwrap();
    let script = rpc::pooler::v1::RunScriptRequest {
        server: format!("servers/{}", shared.world.server.id),
        script: Some(sleep()),
        ..Default::default()
    };
    let mut script = pooler
        .run_script(&shared.token, shared.world.server.instance_id, script)
        .await
        .unwrap();
    let target = shared.world.target.connect().await;
    let asleep = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(300)%' \
                   AND state = 'active' AND datname = current_database()";
        target.query_one(sql, &[]).await.unwrap().get(0)
    };
    eventually(DEADLINE, "both sleep", async || {
        let asleep = asleep().await;
        (asleep == 2).then_some(()).ok_or(asleep)
    })
    .await;
    shared.revoke(&grant).await;
    shared.ends_soon(&shared.token, idle).await;
    shared.ends_soon(&shared.token, name(&pinned)).await;
    eventually(WITHIN, "nothing sleeps any more", async || {
        let asleep = asleep().await;
        (asleep == 0).then_some(()).ok_or(asleep)
    })
    .await;
    let rest = async {
        while running.next().await.is_some() {}
        while script.next().await.is_some() {}
    };
    tokio::time::timeout(DEADLINE, rest).await.unwrap();
    // The owner's go on.
    assert_eq!(shared.world.value(own, "SELECT 1").await, "1");
}

#[tokio::test]
async fn result_that_was_not_read_when_the_grant_was_revoked_is_not_read_any_more() {
    let shared = Shared::new().await;
    let grant = shared.grant(&terms(Access::ReadWrite)).await;
    let session = name(&shared.open_any().await.unwrap());
    let request = ExecuteRequest {
        on_disconnect: OnDisconnect::Continue.into(),
        ..request("SELECT 'secret'")
    };
    let pooler = &shared.world.pooler;
    let events = pooler.execute(&shared.token, session, request).await.unwrap();
    let run = Run::read(events).await;
    let Some(Kind::Started(started)) = &run.events[0].kind else {
        panic!("not started")
    };
    let execution = started.execution.parse().unwrap();
    let again = pooler
        .resume_execution(&shared.token, execution, 0)
        .await
        .unwrap();
    assert_eq!(Run::read(again).await.events.len(), run.events.len());
    shared.revoke(&grant).await;
    shared.ends_soon(&shared.token, session).await;
    let told = pooler.resume_execution(&shared.token, execution, 0).await;
    assert_eq!(cause(&told.err().expect("it is not told")), "access_revoked");
}

#[tokio::test]
async fn expired_grant_ends_sessions() {
    let shared = Shared::new().await;
    let soon = GrantTerms {
        expire_time: Some(SystemClock.now() + Duration::from_secs(3)),
        ..terms(Access::ReadWrite)
    };
    shared.grant(&soon).await;
    let session = name(&shared.open_any().await.unwrap());
    eventually(Duration::from_secs(8), "the session ends", async || {
        let told = shared.world.pooler.get_session(&shared.token, session).await;
        let cause = told.err().map(|status| cause(&status));
        (cause.as_deref() == Some("access_revoked"))
            .then_some(())
            .ok_or_else(|| format!("{cause:?}"))
    })
    .await;
    assert_refused(
        shared.open_any().await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
}

#[tokio::test]
async fn stricter_policy_ends_the_owners_sessions_too() {
    let shared = Shared::new().await;
    let session = shared.world.open_auto().await;
    shared
        .set_policy(&ServerPolicy::production(Tenancy::Single))
        .await;
    shared.ends_soon(&shared.world.token, session).await;
}

#[tokio::test]
async fn sessions_of_a_disabled_user_end() {
    let shared = Shared::new().await;
    shared.grant(&terms(Access::ReadWrite)).await;
    let session = shared.open(shared.world.open_request()).await.unwrap();
    let pid = session.backend_pid;
    let disabled = UserChange {
        disabled: Some(true),
        ..UserChange::default()
    };
    let users = shared.world.store.users();
    users.update(shared.user, disabled).await.unwrap();
    let target = shared.world.target.connect().await;
    eventually(WITHIN, "the backend is gone", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        let left: i64 = target.query_one(sql, &[&pid]).await.unwrap().get(0);
        (left == 0).then_some(()).ok_or(left)
    })
    .await;
}

#[tokio::test]
async fn limits_of_a_grant_narrow_those_of_the_instance() {
    let shared = Shared::new().await;
    let mut limits = GrantLimits::NONE;
    limits.choose(Limit::MaxUserSessions, Some(1)).unwrap();
    limits.choose(Limit::QueryTimeout, Some(200)).unwrap();
    limits.result_rows = Some(2);
    let narrow = GrantTerms {
        limits,
        ..terms(Access::ReadWrite)
    };
    shared.grant(&narrow).await;
    let session = name(&shared.open_any().await.unwrap());
    assert_refused(
        shared.open_any().await,
        Code::ResourceExhausted,
        ErrorReason::SessionLimit,
    );
    let run = async |sql: &str| {
        let request = ExecuteRequest {
            script: Some(split(sql)),
            ..ExecuteRequest::default()
        };
        let events = shared.world.pooler.execute(&shared.token, session, request);
        Run::read(events.await.unwrap()).await
    };
    assert_eq!(run("SELECT generate_series(1, 5)").await.rows().len(), 2);
    let slow = run("SELECT pg_sleep(60)").await;
    assert_eq!(slow.outcome(), rpc::query::v1::ExecutionOutcome::TimedOut);
    // The owner is not held to what they granted.
    let own = shared.world.open_auto().await;
    shared.world.open_auto().await;
    let all = shared.world.run(own, "SELECT generate_series(1, 5)").await;
    assert_eq!(all.rows().len(), 5);
}
