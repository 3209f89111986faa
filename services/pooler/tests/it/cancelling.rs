//! Cancellation, limits, and readers that go away or are slow.

use std::time::Duration;

use domain::session::{ExecutionName, SessionName};
use futures::StreamExt as _;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{CopyInRequest, ExecuteRequest, ExecutionOutcome, OnDisconnect, Script, SessionState};
use sessions::{EventStream, Sessions as _};
use tonic::Status;

use crate::support::{DEADLINE, Run, World, reason, split};

/// Starts a script and reads as far as its name.
pub(crate) async fn start(
    world: &World,
    session: SessionName,
    request: ExecuteRequest,
) -> (ExecutionName, EventStream) {
    let mut stream = world.try_execute(session, request).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    let Some(Kind::Started(started)) = first.events().unwrap().remove(0).kind else {
        panic!("not started")
    };
    let rest = futures::stream::once(async { Ok(first) }).chain(stream).boxed();
    (started.execution.parse().unwrap(), rest)
}

pub(crate) fn request(sql: &str) -> ExecuteRequest {
    ExecuteRequest {
        script: Some(split(sql)),
        ..Default::default()
    }
}

async fn is_idle(world: &World, session: SessionName) -> bool {
    world
        .pooler
        .get_session(&world.token, session)
        .await
        .unwrap()
        .state()
        == SessionState::Idle
}

#[tokio::test]
async fn cancelled_execution_says_so_and_runs_nothing_more() {
    let world = World::new().await;
    let session = world.open().await;
    let (name, stream) = start(&world, session, request("SELECT pg_sleep(60); SELECT 1")).await;
    world.pooler.cancel_execution(&world.token, name).await.unwrap();
    let run = Run::read(stream).await;
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Cancelled, vec!["57014"])
    );
    assert!(run.tags().is_empty());
    let again = world
        .pooler
        .cancel_execution(&world.token, name)
        .await
        .unwrap_err();
    assert_eq!(reason(&again), ErrorReason::ExecutionFinished);
    let execution = world.pooler.get_execution(&world.token, name).await.unwrap();
    assert_eq!(
        (execution.running, execution.outcome()),
        (false, ExecutionOutcome::Cancelled)
    );
}

#[tokio::test]
async fn cancellation_never_hits_a_later_execution() {
    let world = World::new().await;
    let session = world.open().await;
    for round in 0..60_u64 {
        // Ends by itself at about the moment the cancellation arrives.
        let sql = format!("SELECT pg_sleep({})", 0.004 + (round % 7) as f64 * 0.0007);
        let (name, stream) = start(&world, session, request(&sql)).await;
        let (cancelled, run) = tokio::join!(
            world.pooler.cancel_execution(&world.token, name),
            Run::read(stream)
        );
        if let Err(refused) = cancelled {
            assert_eq!(reason(&refused), ErrorReason::ExecutionFinished);
            assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
        }
        let next = world.run(session, "SELECT pg_sleep(0.002)").await;
        assert_eq!(
            next.outcome(),
            ExecutionOutcome::Succeeded,
            "round {round}: {:?}",
            next.events
        );
    }
}

#[tokio::test]
async fn statement_that_takes_too_long_is_cancelled() {
    let world = World::new().await;
    let session = world.open().await;
    let limit = prost_types::Duration {
        seconds: 0,
        nanos: 200_000_000,
    };
    let script = Script {
        statement_timeout: Some(limit),
        ..split("SELECT 1; SELECT pg_sleep(60); SELECT 2")
    };
    let run = world.execute(session, script).await;
    assert_eq!(
        (run.outcome(), run.tags()),
        (ExecutionOutcome::TimedOut, vec!["SELECT 1"])
    );
    assert_eq!(world.value(session, "SELECT 3").await, "3");
}

#[tokio::test]
async fn busy_session_refuses_other_work() {
    let world = World::new().await;
    let session = world.open().await;
    let (name, stream) = start(&world, session, request("SELECT pg_sleep(60)")).await;
    let described = world.pooler.get_session(&world.token, session).await.unwrap();
    assert_eq!(
        (described.state(), described.execution),
        (SessionState::Busy, name.to_string())
    );
    assert!(described.expire_time.is_none());
    assert!(
        world
            .pooler
            .get_execution(&world.token, name)
            .await
            .unwrap()
            .running
    );
    let execute = world
        .try_execute(session, request("SELECT 1"))
        .await
        .err()
        .unwrap();
    let begin = world
        .pooler
        .begin_transaction(&world.token, session, Default::default())
        .await
        .unwrap_err();
    for refused in [execute, begin] {
        assert_eq!(reason(&refused), ErrorReason::SessionBusy);
    }
    world.pooler.cancel_execution(&world.token, name).await.unwrap();
    Run::read(stream).await;
}

#[tokio::test]
async fn reader_that_goes_away_cancels() {
    let world = World::new().await;
    let session = world.open().await;
    let (name, stream) = start(&world, session, request("SELECT pg_sleep(60)")).await;
    drop(stream);
    eventually(DEADLINE, "the session is idle", async || {
        is_idle(&world, session).await
    })
    .await;
    let execution = world.pooler.get_execution(&world.token, name).await.unwrap();
    assert_eq!(execution.outcome(), ExecutionOutcome::Cancelled);
}

#[tokio::test]
async fn execution_goes_on_without_its_reader_where_that_is_wanted() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "CREATE TABLE t AS SELECT pg_sleep(0.2) IS NULL AS slept; SELECT repeat('x', 1000) FROM generate_series(1, 50000)";
    let continued = ExecuteRequest {
        on_disconnect: OnDisconnect::Continue.into(),
        ..request(sql)
    };
    let (name, stream) = start(&world, session, continued).await;
    drop(stream);
    eventually(DEADLINE, "the session is idle", async || {
        is_idle(&world, session).await
    })
    .await;
    let execution = world.pooler.get_execution(&world.token, name).await.unwrap();
    assert_eq!(execution.outcome(), ExecutionOutcome::Succeeded);
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn slow_reader_stops_the_server_and_can_still_cancel() {
    let world = World::new().await;
    let session = world.open().await;
    let endless = "SELECT repeat('x', 1000), generate_series(1, 100000000)";
    let (name, stream) = start(&world, session, request(endless)).await;
    let pid = world
        .pooler
        .get_session(&world.token, session)
        .await
        .unwrap()
        .backend_pid;
    let connection = world.cluster.connect().await;
    let query = "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $1";
    eventually(DEADLINE, "the server waits for its reader", async || {
        connection
            .query_one(query, &[&pid])
            .await
            .unwrap()
            .get::<_, Option<bool>>(0)
            == Some(true)
    })
    .await;
    world.pooler.cancel_execution(&world.token, name).await.unwrap();
    eventually(DEADLINE, "the session is idle", async || {
        is_idle(&world, session).await
    })
    .await;
    let run = Run::read(stream).await;
    assert_eq!(run.outcome(), ExecutionOutcome::Cancelled);
}

#[tokio::test]
async fn copy_that_waits_for_data_can_be_cancelled() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let start = rpc::query::v1::CopyInStart {
        sql: "COPY t FROM STDIN".to_owned(),
        statement_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 300_000_000,
        }),
        ..Default::default()
    };
    let first: Result<CopyInRequest, Status> = Ok(CopyInRequest {
        kind: Some(rpc::query::v1::copy_in_request::Kind::Start(start)),
    });
    let requests = futures::stream::iter([first])
        .chain(futures::stream::pending())
        .boxed();
    let copying = world.pooler.copy_in(&world.token, session, requests);
    let response = tokio::time::timeout(Duration::from_secs(20), copying)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.error.unwrap().message.unwrap().sqlstate, "57014");
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}
