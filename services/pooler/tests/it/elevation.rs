//! Sessions that may write for a while: how they come to, and what becomes of what they do when that is over. The pooler decides
//! by the config database, whatever it is asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::access::{Access, GrantLimits, Principal, ServerPolicy, Tenancy};
use domain::credential::CredentialKind;
use domain::id::{ElevationId, GrantId, UserId};
use domain::random::SystemRandom;
use domain::session::SessionName;
use futures::StreamExt as _;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    BeginTransactionRequest, ExecuteRequest, ExecutionOutcome, FetchMoreRequest, OnLimit, OpenSessionRequest,
    PinReason, Script, Session, SessionAccess, TransactionStatus,
};
use sessions::{EventStream, Sessions as _, UserToken};
use store::elevations::{ElevationChange, ElevationWish, ServerElevation};
use store::grants::GrantTerms;
use tonic::{Code, Status};

use crate::credentials::set_credential;
use crate::support::{DEADLINE, Run, World, name, reason, split};

/// What users are promised.
const WITHIN: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A production server with a table, and somebody who may read there.
struct Production {
    world: World,
    user: UserId,
    token: UserToken,
}

impl Production {
    async fn new() -> Self {
        let world = World::new().await;
        let (user, token) = world.other_person().await;
        let made = world.open().await;
        let made = world.run(made, "CREATE TABLE t (n int)").await;
        assert_eq!(made.outcome(), ExecutionOutcome::Succeeded);
        let terms = GrantTerms {
            access: Access::ReadWrite,
            databases: BTreeSet::new(),
            limits: GrantLimits::NONE,
            expire_time: None,
        };
        let grants = world.store.grants();
        let id = GrantId::generate(&SystemRandom);
        let member = Principal::User(user);
        grants.create(id, world.server.id, member, &terms).await.unwrap();
        let this = Self { world, user, token };
        this.allow(Some(HOUR)).await;
        this
    }

    async fn allow(&self, max_elevation: Option<Duration>) {
        let policy = ServerPolicy {
            max_elevation,
            ..ServerPolicy::production(Tenancy::Single)
        };
        let servers = self.world.store.servers();
        servers
            .set_policy(self.world.server.id, &policy, None)
            .await
            .unwrap();
    }

    async fn request(&self, seconds: u64) -> ServerElevation {
        let wish = ElevationWish {
            databases: BTreeSet::new(),
            reason: "a wrong price".to_owned(),
            duration: Duration::from_secs(seconds),
            session: String::new(),
        };
        let id = ElevationId::generate(&SystemRandom);
        let elevations = self.world.store.elevations();
        elevations
            .request(id, self.world.server.id, self.user, &wish)
            .await
            .unwrap()
    }

    async fn change(&self, elevation: &ServerElevation, change: ElevationChange) {
        let elevations = self.world.store.elevations();
        let by = self.world.user;
        elevations
            .change(elevation.server, elevation.id, by, change, None)
            .await
            .unwrap();
    }

    /// Elevates the user for so long.
    async fn elevate(&self, seconds: u64) -> ServerElevation {
        let elevation = self.request(seconds).await;
        self.change(&elevation, ElevationChange::Approve { longest: HOUR })
            .await;
        elevation
    }

    async fn open(&self, request: OpenSessionRequest) -> Session {
        let instance = self.world.server.instance_id;
        self.world
            .pooler
            .open_session(&self.token, instance, request)
            .await
            .unwrap()
    }

    async fn open_auto(&self) -> SessionName {
        name(&self.open(self.world.auto_request()).await)
    }

    async fn describe(&self, session: SessionName) -> Session {
        self.world.pooler.get_session(&self.token, session).await.unwrap()
    }

    async fn try_run(&self, session: SessionName, sql: &str) -> Result<Run, Status> {
        let request = ExecuteRequest {
            script: Some(split(sql)),
            ..ExecuteRequest::default()
        };
        Ok(Run::read(self.world.pooler.execute(&self.token, session, request).await?).await)
    }

    async fn run(&self, session: SessionName, sql: &str) -> Run {
        self.try_run(session, sql).await.unwrap()
    }

    async fn succeeds(&self, session: SessionName, sql: &str) {
        let run = self.run(session, sql).await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{:?}", run.events);
    }

    async fn is_refused(&self, session: SessionName, sql: &str) {
        let run = self.run(session, sql).await;
        assert_eq!(run.sqlstates(), ["25006"], "{:?}", run.events);
    }

    async fn comes_to(&self, session: SessionName, access: SessionAccess) -> Session {
        eventually(WITHIN, "the session's access changes", async || {
            let session = self.describe(session).await;
            match session.access() == access {
                true => Ok(session),
                false => Err(format!("{session:?}")),
            }
        })
        .await
    }

    /// How many rows the table has, as somebody else sees it, who is kept out by nothing.
    async fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM t";
        self.world
            .target
            .connect()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0)
    }

    /// Has the table so many rows with nothing but 0 in them.
    async fn fill(&self, rows: i32) {
        let sql = "INSERT INTO t SELECT 0 FROM generate_series(1, $1)";
        let client = self.world.target.connect().await;
        client.execute(sql, &[&rows]).await.unwrap();
    }

    /// How many rows of the table have something else in them.
    async fn changed(&self) -> i64 {
        let sql = "SELECT count(*) FROM t WHERE n <> 0";
        let client = self.world.target.connect().await;
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Begins a statement that is suspended after so many rows.
    async fn suspending(&self, session: SessionName, sql: &str, max_rows: i64) -> EventStream {
        let script = Script {
            max_rows: Some(max_rows),
            on_limit: OnLimit::Suspend.into(),
            ..split(sql)
        };
        let request = ExecuteRequest {
            script: Some(script),
            ..ExecuteRequest::default()
        };
        let begun = self.world.pooler.execute(&self.token, session, request).await;
        begun.unwrap()
    }

    /// Waits until a backend is gone, and what it had open with it.
    async fn backend_is_gone(&self, pid: i32) {
        eventually(DEADLINE, "the backend is gone", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
            let watcher = self.world.target.connect().await;
            let left: i64 = watcher.query_one(sql, &[&pid]).await.unwrap().get(0);
            (left == 0).then_some(()).ok_or(left)
        })
        .await;
    }

    /// How many other backends there are whose query begins so.
    async fn running(&self, sql: &str) -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND state = 'active' AND starts_with(query, $1)";
        self.world
            .target
            .connect()
            .await
            .query_one(count, &[&sql])
            .await
            .unwrap()
            .get(0)
    }
}

#[tokio::test]
async fn session_without_pins_writes_while_its_owner_is_elevated_and_on_another_backend() {
    let production = Production::new().await;
    let session = production.open_auto().await;
    let before = production.run(session, "SELECT pg_backend_pid()").await.rows()[0][0].clone();
    production.is_refused(session, "INSERT INTO t VALUES (1)").await;
    let wish = production.request(600).await;
    // To have asked is nothing.
    production.is_refused(session, "INSERT INTO t VALUES (1)").await;
    production
        .change(&wish, ElevationChange::Approve { longest: HOUR })
        .await;
    let raised = production.comes_to(session, SessionAccess::ReadWrite).await;
    assert!(
        raised.elevated_until.is_some() && raised.enforcement.is_none(),
        "{raised:?}"
    );
    production.succeeds(session, "INSERT INTO t VALUES (1)").await;
    let after = production.run(session, "SELECT pg_backend_pid()").await.rows()[0][0].clone();
    assert_ne!(before, after);
    production.change(&wish, ElevationChange::End).await;
    let fallen = production.comes_to(session, SessionAccess::ReadOnly).await;
    assert!(
        fallen.elevated_until.is_none() && fallen.enforcement.is_some(),
        "{fallen:?}"
    );
    // Nothing of it was lost, so there is nothing to tell.
    assert_eq!(fallen.incarnation, 1);
    production.is_refused(session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(production.rows().await, 1);
    // Others of the user may for as long as they like.
    assert_eq!(
        production.open(production.world.auto_request()).await.access(),
        SessionAccess::ReadOnly
    );
}

#[tokio::test]
async fn session_is_the_role_that_writes_while_its_owner_is_elevated_and_the_read_only_one_before_and_after()
{
    let production = Production::new().await;
    let world = &production.world;
    let reader = world.cluster.create_login("").await;
    set_credential(world, CredentialKind::ReadOnly, &reader).await;
    let session = production.open_auto().await;
    let role = async || {
        let rows = production.run(session, "SELECT current_user").await.rows();
        rows[0][0].clone().unwrap()
    };
    assert_eq!(role().await, reader.user);
    let elevation = production.elevate(600).await;
    production.comes_to(session, SessionAccess::ReadWrite).await;
    assert_eq!(role().await, "postgres");
    assert_eq!(production.describe(session).await.username, "postgres");
    production.succeeds(session, "INSERT INTO t VALUES (1)").await;
    production.change(&elevation, ElevationChange::End).await;
    production.comes_to(session, SessionAccess::ReadOnly).await;
    assert_eq!(role().await, reader.user);
    assert_eq!(production.describe(session).await.username, reader.user);
    production.is_refused(session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(production.rows().await, 1);
}

#[tokio::test]
async fn open_transaction_is_rolled_back_when_the_elevation_expires_and_the_session_says_so_once() {
    let production = Production::new().await;
    let session = production.open_auto().await;
    production.elevate(4).await;
    production.comes_to(session, SessionAccess::ReadWrite).await;
    let begin = BeginTransactionRequest::default();
    let begun = production
        .world
        .pooler
        .begin_transaction(&production.token, session, begin)
        .await
        .unwrap();
    assert_eq!(begun.pins, [i32::from(PinReason::Transaction)]);
    production.succeeds(session, "INSERT INTO t VALUES (1)").await;
    let fallen = production.comes_to(session, SessionAccess::ReadOnly).await;
    assert_eq!(fallen.transaction_status(), TransactionStatus::Idle);
    assert!(fallen.pins.is_empty() && fallen.backend_pid == 0, "{fallen:?}");
    let told = production
        .try_run(session, "INSERT INTO t VALUES (2)")
        .await
        .err()
        .unwrap();
    assert_eq!(
        (told.code(), reason(&told)),
        (Code::Aborted, ErrorReason::ElevationEnded)
    );
    production.is_refused(session, "INSERT INTO t VALUES (2)").await;
    eventually(DEADLINE, "the server has rolled back", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        let watcher = production.world.target.connect().await;
        let left: i64 = watcher
            .query_one(sql, &[&begun.backend_pid])
            .await
            .unwrap()
            .get(0);
        (left == 0).then_some(()).ok_or(left)
    })
    .await;
    assert_eq!(production.rows().await, 0);
    assert_eq!(
        production.run(session, "SELECT 1").await.outcome(),
        ExecutionOutcome::Succeeded
    );
}

#[tokio::test]
async fn running_statement_is_cancelled_when_the_elevation_is_ended_and_its_transaction_undone() {
    let production = Production::new().await;
    let session = production.open_auto().await;
    let elevation = production.elevate(600).await;
    production.comes_to(session, SessionAccess::ReadWrite).await;
    production
        .succeeds(session, "BEGIN; INSERT INTO t VALUES (1)")
        .await;
    let sql = "SELECT pg_sleep(300), 'elevated'";
    let sleep = production.run(session, sql);
    let end = async {
        eventually(DEADLINE, "it sleeps", async || {
            let running = production.running(sql).await;
            (running == 1).then_some(()).ok_or(running)
        })
        .await;
        production.change(&elevation, ElevationChange::End).await;
    };
    let both = async { tokio::join!(sleep, end).0 };
    let cut = tokio::time::timeout(DEADLINE, both)
        .await
        .expect("the statement ends");
    let finished = cut.finished();
    assert_eq!(
        finished.outcome(),
        ExecutionOutcome::ElevationEnded,
        "{:?}",
        cut.events
    );
    assert_eq!(finished.transaction_status(), TransactionStatus::Idle);
    assert!(finished.pins.is_empty());
    assert_eq!(production.running(sql).await, 0);
    // Who saw that is not told again.
    production.is_refused(session, "INSERT INTO t VALUES (2)").await;
    let session = production.describe(session).await;
    assert_eq!(
        (session.access(), session.incarnation),
        (SessionAccess::ReadOnly, 2)
    );
    assert_eq!(production.rows().await, 0);
}

#[tokio::test]
async fn what_a_suspended_statement_wrote_is_rolled_back_when_the_elevation_ends() {
    let production = Production::new().await;
    production.fill(10).await;
    let session = production.open_auto().await;
    let elevation = production.elevate(600).await;
    production.comes_to(session, SessionAccess::ReadWrite).await;
    let sql = "UPDATE t SET n = 1 RETURNING n";
    let part = Run::read(production.suspending(session, sql, 3).await).await;
    assert_eq!(part.outcome(), ExecutionOutcome::Suspended, "{:?}", part.events);
    let pid = production.describe(session).await.backend_pid;
    production.change(&elevation, ElevationChange::End).await;
    let fallen = production.comes_to(session, SessionAccess::ReadOnly).await;
    assert!(fallen.pins.is_empty(), "{fallen:?}");
    production.backend_is_gone(pid).await;
    assert_eq!(production.changed().await, 0);
    let told = production.try_run(session, "SELECT 1").await.err().unwrap();
    assert_eq!(reason(&told), ErrorReason::ElevationEnded);
    production.succeeds(session, "SELECT 1").await;
}

#[tokio::test]
async fn who_goes_on_with_what_an_elevation_took_along_is_told_so_once() {
    let production = Production::new().await;
    production.fill(10).await;
    let session = production.open_auto().await;
    let elevation = production.elevate(600).await;
    production.comes_to(session, SessionAccess::ReadWrite).await;
    let part = Run::read(production.suspending(session, "SELECT n FROM t", 3).await).await;
    let Some(Kind::Started(started)) = part.kinds().next() else {
        panic!("not started: {:?}", part.events)
    };
    let execution = started.execution.parse().unwrap();
    production.change(&elevation, ElevationChange::End).await;
    production.comes_to(session, SessionAccess::ReadOnly).await;
    let more = async || {
        let (pooler, request) = (&production.world.pooler, FetchMoreRequest::default());
        pooler
            .fetch_more(&production.token, execution, request)
            .await
            .err()
            .unwrap()
    };
    let told = more().await;
    assert_eq!(
        (told.code(), reason(&told)),
        (Code::Aborted, ErrorReason::ElevationEnded)
    );
    assert_eq!(reason(&more().await), ErrorReason::PortalClosed);
    production.succeeds(session, "SELECT 1").await;
}

#[tokio::test]
async fn what_a_half_read_statement_wrote_is_rolled_back_when_the_elevation_ends() {
    // One page that is suspended, and one that comes to its end: no more than what the sockets hold, so that the server is
    // done with it long before it is read.
    for max_rows in [60, 1000] {
        let production = Production::new().await;
        production.fill(80).await;
        let session = production.open_auto().await;
        let elevation = production.elevate(600).await;
        production.comes_to(session, SessionAccess::ReadWrite).await;
        let sql = "UPDATE t SET n = 1 RETURNING repeat('x', 10000)";
        let unread = production.suspending(session, sql, max_rows).await;
        let pid = production.describe(session).await.backend_pid;
        eventually(DEADLINE, "the server waits for us", async || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query = $2 \
                AND state = 'active' AND wait_event_type = 'Client'";
            let watcher = production.world.target.connect().await;
            let row = watcher.query_one(waits, &[&pid, &sql]).await.unwrap();
            let waiting: i64 = row.get(0);
            (waiting == 1).then_some(()).ok_or(waiting)
        })
        .await;
        production.change(&elevation, ElevationChange::End).await;
        production.comes_to(session, SessionAccess::ReadOnly).await;
        let cut = Run::read(unread).await;
        assert_eq!(cut.outcome(), ExecutionOutcome::ElevationEnded);
        assert!(cut.finished().pins.is_empty() && cut.tags().is_empty());
        production.backend_is_gone(pid).await;
        assert_eq!(production.changed().await, 0);
        // Who saw that is not told again.
        production.is_refused(session, "INSERT INTO t VALUES (1)").await;
    }
}

#[tokio::test]
async fn who_follows_notifications_sees_that_nothing_is_listened_to_any_more() {
    let production = Production::new().await;
    let session = production.open_auto().await;
    let elevation = production.elevate(600).await;
    production.comes_to(session, SessionAccess::ReadWrite).await;
    production.succeeds(session, "LISTEN jobs").await;
    let pooler = &production.world.pooler;
    let mut watch = pooler.watch_session(&production.token, session).await.unwrap();
    assert!(watch.next().await.unwrap().is_ok());
    production.change(&elevation, ElevationChange::End).await;
    let end = tokio::time::timeout(WITHIN, watch.next()).await;
    assert!(end.expect("the stream ends").is_none());
    let told = production.try_run(session, "SELECT 1").await.err().unwrap();
    assert_eq!(reason(&told), ErrorReason::ElevationEnded);
}

#[tokio::test]
async fn session_that_is_held_or_was_asked_to_read_only_is_not_raised() {
    let production = Production::new().await;
    let pinned = production.open(production.world.open_request()).await;
    let wish = OpenSessionRequest {
        access: SessionAccess::ReadOnly.into(),
        ..production.world.auto_request()
    };
    let careful = production.open(wish.clone()).await;
    let held = production.open_auto().await;
    production.succeeds(held, "BEGIN; SELECT 1").await;
    let free = production.open_auto().await;
    production.elevate(600).await;
    production.comes_to(free, SessionAccess::ReadWrite).await;
    for session in [name(&pinned), name(&careful), held] {
        assert_eq!(
            production.describe(session).await.access(),
            SessionAccess::ReadOnly
        );
    }
    production
        .is_refused(name(&pinned), "INSERT INTO t VALUES (1)")
        .await;
    production
        .is_refused(name(&careful), "INSERT INTO t VALUES (1)")
        .await;
    production.is_refused(held, "INSERT INTO t VALUES (1)").await;
    assert_eq!(production.open(wish).await.access(), SessionAccess::ReadOnly);
    // It is once nothing holds it.
    production.run(held, "ROLLBACK").await;
    production.succeeds(held, "INSERT INTO t VALUES (1)").await;
    assert_eq!(production.rows().await, 1);
}

#[tokio::test]
async fn session_opened_while_elevated_writes_and_reads_on_after_it_or_ends_where_it_is_pinned() {
    let production = Production::new().await;
    let elevation = production.elevate(600).await;
    let shared = production.open(production.world.auto_request()).await;
    let pinned = production.open(production.world.open_request()).await;
    for session in [&shared, &pinned] {
        assert_eq!(session.access(), SessionAccess::ReadWrite);
        assert!(session.elevated_until.is_some(), "{session:?}");
        production
            .succeeds(name(session), "INSERT INTO t VALUES (1)")
            .await;
    }
    production.change(&elevation, ElevationChange::End).await;
    production.comes_to(name(&shared), SessionAccess::ReadOnly).await;
    production
        .is_refused(name(&shared), "INSERT INTO t VALUES (1)")
        .await;
    eventually(WITHIN, "the pinned session ends", async || {
        let told = production
            .world
            .pooler
            .get_session(&production.token, name(&pinned))
            .await;
        told.err().map(|status| reason(&status)).ok_or("it lives")
    })
    .await;
    assert_eq!(production.rows().await, 2);
}

/// The API is one of the pooler's callers, and says nothing that counts.
#[tokio::test]
async fn nothing_a_caller_says_raises_a_session() {
    let production = Production::new().await;
    production.request(600).await;
    let wish = OpenSessionRequest {
        access: SessionAccess::ReadWrite.into(),
        ..production.world.auto_request()
    };
    let session = production.open(wish).await;
    assert_eq!(session.access(), SessionAccess::ReadOnly);
    production
        .is_refused(name(&session), "INSERT INTO t VALUES (1)")
        .await;
    // Neither does another's elevation, nor one that the policy does not allow any more.
    production.elevate(600).await;
    let own = production.world.open_auto().await;
    production
        .comes_to(name(&session), SessionAccess::ReadWrite)
        .await;
    assert_eq!(
        production.world.describe(own).await.access(),
        SessionAccess::ReadOnly
    );
    production.allow(None).await;
    production.comes_to(name(&session), SessionAccess::ReadOnly).await;
    production
        .is_refused(name(&session), "INSERT INTO t VALUES (1)")
        .await;
    assert_eq!(production.rows().await, 0);
}
