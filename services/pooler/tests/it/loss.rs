//! How sessions end, and who is told.

use domain::session::SessionName;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{ExecutionOutcome, OpenSessionRequest};
use sessions::Sessions as _;
use tokio::time::{Duration, Instant};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::cancelling::{request, start};
use crate::support::{DEADLINE, Run, World, name, reason};

fn cause(status: &Status) -> String {
    assert_eq!(reason(status), ErrorReason::SessionStateLost, "{status:?}");
    status.get_details_error_info().unwrap().metadata["cause"].clone()
}

async fn is_gone(world: &World, session: SessionName) -> Result<Status, &'static str> {
    match world.pooler.get_session(&world.token, session).await {
        Ok(_) => Err("it is still there"),
        Err(status) => Ok(status),
    }
}

fn half_a_second() -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: 0,
        nanos: 500_000_000,
    })
}

#[tokio::test]
async fn idle_session_is_closed_and_its_owner_told() {
    let world = World::new().await;
    let request = OpenSessionRequest {
        idle_timeout: half_a_second(),
        ..world.open_request()
    };
    let session = name(&world.try_open(request).await.unwrap());
    let gone = eventually(DEADLINE, "the session is gone", async || {
        is_gone(&world, session).await
    })
    .await;
    assert_eq!(cause(&gone), "idle_timeout");
    let other = world.other_user().await;
    let theirs = world.pooler.get_session(&other, session).await.unwrap_err();
    assert_eq!(reason(&theirs), ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn session_left_in_a_transaction_is_closed_sooner() {
    let world = World::new().await;
    let request = OpenSessionRequest {
        idle_in_transaction_timeout: half_a_second(),
        ..world.open_request()
    };
    let session = name(&world.try_open(request).await.unwrap());
    world.run(session, "BEGIN; CREATE TABLE t (a int)").await;
    let gone = eventually(DEADLINE, "the session is gone", async || {
        is_gone(&world, session).await
    })
    .await;
    assert_eq!(cause(&gone), "idle_in_transaction_timeout");
}

#[tokio::test]
async fn sign_of_life_puts_the_end_off() {
    let world = World::new().await;
    let limit = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let request = OpenSessionRequest {
        idle_timeout: limit,
        ..world.open_request()
    };
    let session = name(&world.try_open(request).await.unwrap());
    let began = Instant::now();
    eventually(DEADLINE, "its limit has passed", async || {
        let kept = world.pooler.keep_session_alive(&world.token, session).await;
        kept.unwrap();
        began.elapsed() > Duration::from_secs(3)
    })
    .await;
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn closed_session_is_gone_with_its_backend() {
    let world = World::new().await;
    let session = world.open().await;
    let pid = world
        .pooler
        .get_session(&world.token, session)
        .await
        .unwrap()
        .backend_pid;
    world.pooler.close_session(&world.token, session).await.unwrap();
    let connection = world.cluster.connect().await;
    let row = connection
        .query_one("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", &[&pid])
        .await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 0);
    assert_eq!(cause(&is_gone(&world, session).await.unwrap()), "closed");
    // Closing again changes nothing.
    world.pooler.close_session(&world.token, session).await.unwrap();
}

#[tokio::test]
async fn closing_ends_what_runs() {
    let world = World::new().await;
    let session = world.open().await;
    let (_, stream) = start(&world, session, request("SELECT pg_sleep(60)")).await;
    let (closed, run) = tokio::join!(
        world.pooler.close_session(&world.token, session),
        Run::read(stream)
    );
    closed.unwrap();
    assert_eq!(run.outcome(), ExecutionOutcome::Cancelled);
}

#[tokio::test]
async fn backend_that_dies_idle_is_a_lost_session() {
    let world = World::new().await;
    let session = world.open().await;
    let pid = world
        .pooler
        .get_session(&world.token, session)
        .await
        .unwrap()
        .backend_pid;
    world.cluster.kill_backend(pid).await;
    let gone = eventually(DEADLINE, "the session is gone", async || {
        is_gone(&world, session).await
    })
    .await;
    assert_eq!(cause(&gone), "backend_terminated");
}

#[tokio::test]
async fn backend_that_dies_at_work_is_an_outcome() {
    let world = World::new().await;
    let session = world.open().await;
    let pid = world
        .pooler
        .get_session(&world.token, session)
        .await
        .unwrap()
        .backend_pid;
    let (_, stream) = start(&world, session, request("SELECT pg_sleep(60)")).await;
    let ((), run) = tokio::join!(world.cluster.kill_backend(pid), Run::read(stream));
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Lost, vec!["57P01"])
    );
    assert_eq!(
        cause(&is_gone(&world, session).await.unwrap()),
        "backend_terminated"
    );
}

#[tokio::test]
async fn other_peoples_sessions_and_unknown_ones_look_the_same() {
    let world = World::new().await;
    let session = world.open().await;
    let other = world.other_user().await;
    let theirs = world.pooler.get_session(&other, session).await.unwrap_err();
    world.pooler.close_session(&world.token, session).await.unwrap();
    let ended = world.pooler.get_session(&other, session).await.unwrap_err();
    for status in [&theirs, &ended] {
        assert_eq!(reason(status), ErrorReason::ResourceNotFound);
        assert_eq!(status.message(), theirs.message());
    }
    assert!(world.pooler.list_sessions(&other, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn drained_pooler_waits_then_ends_what_is_left() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "BEGIN; CREATE TABLE t (a int)").await;
    let draining = world.pooler.clone();
    let (drained, refused) = tokio::join!(
        draining.drain(Instant::now() + Duration::from_millis(500)),
        async {
            eventually(DEADLINE, "new sessions are refused", async || {
                world.try_open(world.open_request()).await.err()
            })
            .await
        }
    );
    let () = drained;
    assert_eq!(reason(&refused), ErrorReason::ShuttingDown);
    assert_eq!(cause(&is_gone(&world, session).await.unwrap()), "drained");
    assert!(world.store.poolers().list_live().await.unwrap().is_empty());
    let owner = world
        .store
        .instance_owners()
        .owner_of(world.server.instance_id)
        .await
        .unwrap();
    assert_eq!(owner, None);
}
