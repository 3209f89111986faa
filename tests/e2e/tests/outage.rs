//! Parts of a deployment go away and come back.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::world::{Caller, SUPERUSER, create_server};
use e2e::{Client, RoleProcess, World, reason};
use futures::FutureExt as _;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{BeginTransactionRequest, CommitTransactionRequest, Session};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::worlds::alone;

const SOON: Duration = Duration::from_secs(30);
/// How long a pooler that was killed may hold what it owned.
const LEASE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn sessions_go_on_without_the_config_database_and_logins_wait_for_it() {
    let world = alone().await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_session(&server).await.unwrap();
    caller
        .b()
        .execute(&session.name, "CREATE TEMP TABLE t (n int)")
        .await
        .unwrap();

    world.config_database().cluster().stop().await;
    // Started again whatever happens: other tests use this world too.
    let outage = AssertUnwindSafe(during_outage(&world, &caller, &session)).catch_unwind();
    let outage = outage.await;
    world.config_database().cluster().start_again().await;
    if let Err(panic) = outage {
        resume_unwind(panic);
    }

    eventually(SOON, "logins work again", async || {
        log_in(&world).await.map_err(|status| reason::text(&status))
    })
    .await;
    eventually(SOON, "sessions can be opened again", async || {
        let opened = caller.b().open_session(&server).await;
        let opened = opened.map_err(|status| reason::text(&status))?;
        caller
            .b()
            .close_session(&opened)
            .await
            .map_err(|status| reason::text(&status))
    })
    .await;
    // The old session has seen nothing of it.
    let counted = caller
        .b()
        .execute(&session.name, "SELECT count(*) FROM t")
        .await
        .unwrap();
    assert_eq!((counted.value(), counted.backend_pid), ("3", session.backend_pid));
    caller.a().close_session(&session).await.unwrap();
    assert!(
        world
            .apis()
            .iter()
            .chain(world.poolers())
            .all(RoleProcess::is_running)
    );
}

async fn during_outage(world: &World, caller: &Caller, session: &Session) {
    let begin = BeginTransactionRequest {
        session: session.name.clone(),
        ..BeginTransactionRequest::default()
    };
    caller.a().query().begin_transaction(begin).await.unwrap();
    for client in [caller.b(), caller.a(), &caller.balanced] {
        let inserted = client
            .execute(&session.name, "INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        assert_eq!(inserted.tags, ["INSERT 0 1"]);
    }
    let commit = CommitTransactionRequest {
        session: session.name.clone(),
    };
    caller.b().query().commit_transaction(commit).await.unwrap();
    let counted = caller
        .a()
        .execute(&session.name, "SELECT count(*) FROM t")
        .await
        .unwrap();
    assert_eq!(counted.value(), "3");
    let refused = log_in(world).await;
    reason::expect(refused, Code::Unavailable, ErrorReason::ConfigDatabaseUnavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_goes_on_for_twenty_seconds_without_the_config_database() {
    let world = alone().await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut working = JoinSet::new();
    for number in 0..10_usize {
        let client = if number % 2 == 0 { caller.a() } else { caller.b() }.clone();
        let session = if number < 3 {
            client.open_session(&server).await.unwrap()
        } else {
            client.open_auto(&server).await.unwrap()
        };
        let stop = Arc::clone(&stop);
        working.spawn(async move {
            let mut done = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let sql = format!("BEGIN; SELECT {done} + 1; COMMIT");
                let run = client.execute(&session.name, &sql).await;
                let run = run.unwrap_or_else(|status| panic!("{}", reason::text(&status)));
                assert_eq!(run.value(), (done + 1).to_string(), "{run:?}");
                done += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.close_session(&session).await.unwrap();
            done
        });
    }
    world.config_database().cluster().stop().await;
    let outage = AssertUnwindSafe(async {
        // Longer than a pooler's lease.
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while tokio::time::Instant::now() < until {
            let refused = log_in(&world).await;
            reason::expect(refused, Code::Unavailable, ErrorReason::ConfigDatabaseUnavailable);
            let refused = caller.b().open_session(&server).await;
            assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
            let new = create_server(caller.a(), world.target_server(), "x").await;
            reason::expect(new, Code::Unavailable, ErrorReason::ConfigDatabaseUnavailable);
        }
    })
    .catch_unwind()
    .await;
    world.config_database().cluster().start_again().await;
    if let Err(panic) = outage {
        resume_unwind(panic);
    }
    eventually(SOON, "sessions can be opened again", async || {
        let opened = caller.b().open_session(&server).await;
        let opened = opened.map_err(|status| reason::text(&status))?;
        caller
            .b()
            .close_session(&opened)
            .await
            .map_err(|status| reason::text(&status))
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for done in working.join_all().await {
        assert!(done > 100, "{done} transactions");
    }
}

async fn log_in(world: &World) -> Result<(), Status> {
    let client = Client::anonymous(&world.url());
    client
        .log_in(SUPERUSER, world.superuser_password())
        .await
        .map(drop)
}

#[tokio::test]
async fn killed_pooler_takes_its_sessions_along_says_so_and_serves_new_ones_when_it_is_back() {
    let mut world = alone().await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_session(&server).await.unwrap();
    caller
        .a()
        .execute(&session.name, "CREATE TEMP TABLE t (n int)")
        .await
        .unwrap();

    world.poolers_mut()[0].kill9().await;
    let refused = caller.b().execute(&session.name, "SELECT 1").await;
    let status = refused.map(drop).unwrap_err();
    assert!(
        matches!(
            reason::of(&status),
            (Code::Unavailable, ErrorReason::PoolerUnavailable)
                | (
                    Code::NotFound,
                    ErrorReason::SessionStateLost | ErrorReason::ResourceNotFound
                )
        ),
        "{}",
        reason::text(&status)
    );

    world.poolers_mut()[0].start_again().await;
    eventually(LEASE, "the instance is served again", async || {
        let opened = caller.b().open_session(&server).await;
        let opened = opened.map_err(|status| reason::text(&status))?;
        caller
            .a()
            .close_session(&opened)
            .await
            .map_err(|status| reason::text(&status))
    })
    .await;
    eventually(LEASE, "the old session answers as lost", async || {
        let lost = caller.b().execute(&session.name, "SELECT count(*) FROM t").await;
        let status = lost
            .map(drop)
            .expect_err("a pinned session does not outlive its pooler");
        if status.code() == Code::NotFound {
            Ok(())
        } else {
            Err(reason::text(&status))
        }
    })
    .await;
    for api in world.apis() {
        api.wait_for_sessions().await;
    }
}

#[tokio::test]
async fn stopped_instance_ends_well_and_the_others_serve() {
    let mut world = alone().await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_session(&server).await.unwrap();
    assert!(world.apis_mut()[0].stop().await, "{}", world.apis()[0].log_text());
    for _ in 0..4 {
        let answer = caller.balanced.execute(&session.name, "SELECT 1").await.unwrap();
        assert_eq!(answer.value(), "1");
    }
    world.apis_mut()[0].start_again().await;
    caller.a().close_session(&session).await.unwrap();
}
