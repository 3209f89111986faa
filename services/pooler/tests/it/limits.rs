//! The limits of an instance.

use domain::endpoint::{Endpoint, SslMode};
use domain::limits::Limit;
use domain::session::SessionName;
use futures::future::join_all;
use harness::{Cluster, ClusterOptions, eventually};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{ExecutionOutcome, OpenSessionRequest};
use sessions::Sessions as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::auto::backends;
use crate::cancelling::request;
use crate::support::{DEADLINE, World, name, reason, register, start_pooler_for, verifier};

async fn ends(world: &World, session: SessionName) -> String {
    let gone = eventually(DEADLINE, "the session ends", async || {
        world
            .pooler
            .get_session(&world.token, session)
            .await
            .err()
            .ok_or("it is there")
    })
    .await;
    assert_eq!(reason(&gone), ErrorReason::SessionStateLost);
    gone.get_details_error_info().unwrap().metadata["cause"].clone()
}

async fn backends_become(world: &World, count: i64) {
    eventually(DEADLINE, "the number of backends", async || {
        match backends(world).await {
            now if now == count => Ok(()),
            now => Err(format!("{now}, not {count}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_keeps_to_its_size_while_the_budget_has_more() {
    let world = World::new().await;
    world.set_limits(&[(Limit::PoolSize, 2)]).await;
    let sessions = join_all((0..5).map(|_| world.open_auto())).await;
    let runs = sessions
        .iter()
        .map(|session| world.run(*session, "SELECT pg_sleep(0.1)"));
    for run in join_all(runs).await {
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    }
    assert_eq!(backends(&world).await, 2);
    // Others are not held up.
    assert_eq!(world.value(world.open().await, "SELECT 1").await, "1");
}

#[tokio::test]
async fn pool_keeps_its_minimum_while_somebody_lives_there() {
    let world = World::new().await;
    world
        .set_limits(&[(Limit::MinPoolSize, 2), (Limit::ServerIdleTimeout, 1000)])
        .await;
    let session = world.open_auto().await;
    backends_become(&world, 2).await;
    assert_eq!(world.value(session, "SELECT 1").await, "1");
    world.pooler.close_session(&world.token, session).await.unwrap();
    backends_become(&world, 0).await;
}

#[tokio::test]
async fn backend_that_rests_too_long_is_closed_unless_it_holds_something() {
    let world = World::new().await;
    world.set_limits(&[(Limit::ServerIdleTimeout, 1000)]).await;
    let setup = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('work_mem', '7MB', false); \
                 RETURN NEW; END $$; CREATE TABLE t (a int); \
                 CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();";
    world.target.connect().await.batch_execute(setup).await.unwrap();
    let (plain, holding) = (world.open_auto().await, world.open_auto().await);
    world.run(plain, "SELECT 1").await;
    world.run(holding, "INSERT INTO t VALUES (1)").await;
    backends_become(&world, 1).await;
    assert_eq!(world.value(holding, "SHOW work_mem").await, "7MB");
    assert_eq!(world.value(plain, "SELECT 1").await, "1");
}

#[tokio::test]
async fn backend_is_closed_when_its_lifetime_is_over() {
    let world = World::new().await;
    world
        .set_limits(&[(Limit::ServerLifetime, 1), (Limit::ServerLifetimeJitter, 0)])
        .await;
    let session = world.open_auto().await;
    let first = world.value(session, "SELECT pg_backend_pid()").await;
    backends_become(&world, 0).await;
    assert_ne!(world.value(session, "SELECT pg_backend_pid()").await, first);
    // What it holds outlives it.
    world.run(session, "SET work_mem = '7MB'").await;
    assert_eq!(world.value(session, "SHOW work_mem").await, "7MB");
}

#[tokio::test]
async fn backend_that_rested_is_asked_before_it_is_used() {
    let world = World::new().await;
    world.set_limits(&[(Limit::ServerCheckDelay, 0)]).await;
    let session = world.open_auto().await;
    let pid = world.value(session, "SELECT pg_backend_pid()").await;
    assert_eq!(world.value(session, "SELECT pg_backend_pid()").await, pid);
}

#[tokio::test]
async fn statements_and_transactions_end_in_time() {
    let world = World::new().await;
    world
        .set_limits(&[(Limit::QueryTimeout, 300), (Limit::TransactionTimeout, 1500)])
        .await;
    for session in [world.open().await, world.open_auto().await] {
        let run = world.run(session, "SELECT pg_sleep(60)").await;
        assert_eq!(
            (run.outcome(), run.sqlstates()),
            (ExecutionOutcome::TimedOut, vec!["57014"])
        );
        world.run(session, "BEGIN").await;
        assert_eq!(world.value(session, "SELECT 1").await, "1");
        assert_eq!(ends(&world, session).await, "transaction_timeout");
    }
}

#[tokio::test]
async fn transaction_that_works_all_the_time_ends_too() {
    let world = World::new().await;
    world.set_limits(&[(Limit::TransactionTimeout, 700)]).await;
    let session = world.open_auto().await;
    let run = world.run(session, "BEGIN; SELECT pg_sleep(60)").await;
    assert_eq!(run.outcome(), ExecutionOutcome::TimedOut);
    assert_eq!(ends(&world, session).await, "transaction_timeout");
}

#[tokio::test]
async fn transaction_of_many_short_statements_ends_too() {
    let world = World::new().await;
    world.set_limits(&[(Limit::TransactionTimeout, 1000)]).await;
    let session = world.open().await;
    let sql = format!("BEGIN; {}", "SELECT pg_sleep(0.2);".repeat(100));
    let run = world.run(session, &sql).await;
    assert_eq!(run.outcome(), ExecutionOutcome::TimedOut);
    assert!(run.tags().len() < 10, "{:?}", run.tags());
}

#[tokio::test]
async fn idle_session_ends_when_the_instance_says_so() {
    let world = World::new().await;
    let (idle, pinned) = (world.open_auto().await, world.open_auto().await);
    world.run(pinned, "SET work_mem = '7MB'").await;
    world.set_limits(&[(Limit::PinnedIdleTimeout, 500)]).await;
    // Opening takes the limits over.
    world.open_auto().await;
    assert_eq!(ends(&world, pinned).await, "pinned_idle_timeout");
    world.set_limits(&[(Limit::ClientIdleTimeout, 1000)]).await;
    world.open_auto().await;
    assert_eq!(ends(&world, idle).await, "idle_timeout");
}

#[tokio::test]
async fn user_has_so_many_sessions_and_no_more() {
    let world = World::new().await;
    world.set_limits(&[(Limit::MaxUserSessions, 2)]).await;
    let first = world.open_auto().await;
    world.open().await;
    for wish in [world.auto_request(), world.open_request()] {
        let refused = world.try_open(wish).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::SessionLimit);
    }
    world.pooler.close_session(&world.token, first).await.unwrap();
    world.open_auto().await;
}

fn hurried(world: &World) -> OpenSessionRequest {
    OpenSessionRequest {
        queue_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 300_000_000,
        }),
        ..world.open_request()
    }
}

#[tokio::test]
async fn pinned_sessions_leave_room_for_the_others() {
    let world = World::new().await;
    world.set_limits(&[(Limit::MaxPinnedConnections, 1)]).await;
    world.open().await;
    let refused = world.try_open(hurried(&world)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    assert_eq!(world.value(world.open_auto().await, "SELECT 1").await, "1");
}

#[tokio::test]
async fn who_waits_long_gets_what_is_reserved() {
    let world = World::new().await;
    world.set_budget(2, 1).await;
    world.set_limits(&[(Limit::ReservePoolTimeout, 600)]).await;
    world.open().await;
    let refused = world.try_open(hurried(&world)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    let began = Instant::now();
    world.open().await;
    assert!(began.elapsed().as_millis() >= 600);
}

#[tokio::test]
async fn longest_wait_is_the_instances() {
    let world = World::new().await;
    world.set_budget(1, 0).await;
    world.set_limits(&[(Limit::QueryWaitTimeout, 200)]).await;
    let (holder, waiter) = (world.open_auto().await, world.open_auto().await);
    world.run(holder, "BEGIN").await;
    let began = Instant::now();
    let refused = world
        .try_execute(waiter, request("SELECT 1"))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    // The session itself would have waited for 10 s.
    assert!(began.elapsed().as_secs() < 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_is_down_fails_fast_and_recovers_by_itself() {
    let world = World::new().await;
    // A port where nobody listens yet.
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let pooler = start_pooler_for(
        &world.store,
        &[port, world.cluster.port()],
        &world.opening_key,
        verifier(&world.store).await,
    )
    .await;
    let server = register(
        &world.store,
        &world.opening_key,
        world.user,
        "down",
        world.target.name(),
        &world.cluster.endpoint().superuser(),
        Endpoint::new("127.0.0.1", port.into()).unwrap(),
        SslMode::Disable,
    )
    .await;
    let wish = OpenSessionRequest {
        server: format!("servers/{}", server.id),
        ..world.auto_request()
    };
    let session = name(
        &pooler
            .open_session(&world.token, server.instance_id, wish)
            .await
            .unwrap(),
    );
    let run = async || {
        let mut stream = pooler.execute(&world.token, session, request("SELECT 1")).await?;
        while let Some(message) = futures::StreamExt::next(&mut stream).await {
            message?;
        }
        Ok::<_, Status>(())
    };
    for _ in 0..50 {
        let refused = run().await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::TargetUnreachable, "{refused:?}");
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let target = world.cluster.port();
    let mut forwarding = JoinSet::new();
    forwarding.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            open.spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    eventually(DEADLINE, "the server is back", async || {
        run().await.map_err(|status| status.to_string())
    })
    .await;
    pooler.drain(Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_has_no_more_connections_for_us_is_told_apart_and_what_we_have_is_shared() {
    let options = ClusterOptions::default()
        .setting("max_connections", "12")
        .setting("superuser_reserved_connections", "3");
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(options).await));
    let login = cluster.create_login("").await;
    let world = World::with(cluster, &login, SslMode::Disable).await;
    // Others leave us two.
    let mut others = Vec::new();
    for _ in 0..7 {
        others.push(cluster.endpoint().connect(&login, "postgres").await);
    }
    let sessions = join_all((0..8).map(|_| world.open_auto())).await;
    let runs = sessions
        .iter()
        .map(|session| world.run(*session, "SELECT pg_sleep(0.05)"));
    for run in join_all(runs).await {
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    }
    assert!(backends(&world).await <= 2);
    // A session that must have a connection of its own is told whose limit it is.
    for _ in 0..2 {
        others.push(cluster.connect().await);
    }
    for session in &sessions {
        world.run(*session, "SET work_mem = '7MB'").await;
        if world.describe(sessions[1]).await.backend_pid != 0 {
            break;
        }
    }
    let refused = world.try_open(world.open_request()).await.unwrap_err();
    assert!(
        matches!(
            reason(&refused),
            ErrorReason::TargetTooManyClients | ErrorReason::BudgetExhausted
        ),
        "{refused:?}"
    );
    drop(others);
    eventually(DEADLINE, "there is room again", async || {
        world
            .try_open(world.open_request())
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    cluster.stop().await;
}
