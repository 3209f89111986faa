//! The budget of an instance: kept to, shared fairly, explained when it is used up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use domain::endpoint::{Endpoint, SslMode};
use futures::StreamExt as _;
use harness::{Cluster, ClusterOptions, eventually};
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::LeaseSlotsRequest;
use rpc::pooler::v1::lease_slots_response::Kind;
use rpc::query::v1::OpenSessionRequest;
use sessions::Sessions as _;
use tokio::task::JoinSet;
use tonic_types::StatusExt as _;

use crate::cancelling::{request, start};
use crate::support::{DEADLINE, World, name, reason, register, start_pooler, verifier};

fn impatient(world: &World) -> OpenSessionRequest {
    let queue_timeout = Some(prost_types::Duration {
        seconds: 0,
        nanos: 300_000_000,
    });
    OpenSessionRequest {
        queue_timeout,
        ..world.open_request()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_never_sees_more_connections_than_the_budget() {
    // A cluster of its own: every other client backend there is one too many.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await));
    let login = cluster.endpoint().superuser();
    let world = Arc::new(World::with(cluster, &login, SslMode::Disable).await);
    world.set_budget(5, 0).await;
    // Thirty at once would all have to ask the config database who they are.
    world.pooler.list_sessions(&world.token, None).await.unwrap();
    let (most, done) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        // Thirty at once would all have to ask the config database who they are.
        world.pooler.list_sessions(&world.token, None).await.unwrap();
        let (most, done) = (Arc::clone(&most), Arc::clone(&done));
        let connection = cluster.connect().await;
        async move {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                       AND application_name LIKE 'pgmoor/%'";
            let mut looks = tokio::time::interval(std::time::Duration::from_millis(2));
            while !done.load(Ordering::Relaxed) {
                looks.tick().await;
                let count = connection.query_one(sql, &[]).await.unwrap().get(0);
                most.fetch_max(count, Ordering::Relaxed);
            }
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher);
    let mut opens = JoinSet::new();
    for _ in 0..30 {
        let world = Arc::clone(&world);
        opens.spawn(async move {
            let patient = Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            });
            let request = OpenSessionRequest {
                queue_timeout: patient,
                ..world.open_request()
            };
            let session = name(&world.try_open(request).await.unwrap());
            assert_eq!(world.value(session, "SELECT 1").await, "1");
            world.pooler.close_session(&world.token, session).await.unwrap();
        });
    }
    while let Some(opened) = opens.join_next().await {
        opened.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    tasks.join_next().await.unwrap().unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!((1..=5).contains(&most), "{most} connections");
    cluster.stop().await;
}

#[tokio::test]
async fn refusal_names_the_callers_own_sessions() {
    let world = World::new().await;
    world.set_budget(3, 1).await;
    let sessions = [world.open().await, world.open().await];
    let refused = world.try_open(impatient(&world)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(
        (
            info.metadata["max_connections"].as_str(),
            info.metadata["in_use_pinned"].as_str()
        ),
        ("3", "2")
    );
    for session in sessions {
        assert!(info.metadata["own_holders"].contains(&session.to_string()));
    }
    // A larger budget takes effect with the next call.
    world.set_budget(4, 1).await;
    world.try_open(impatient(&world)).await.unwrap();
}

#[tokio::test]
async fn worker_takes_the_reserve_and_gives_it_back_when_it_stops_listening() {
    let world = World::new().await;
    world.set_budget(4, 3).await;
    world.open().await;
    let instance = world.server.instance_id;
    let request = |count| LeaseSlotsRequest {
        held: false,
        instance: format!("instances/{instance}"),
        count,
        operation: "operations/x".to_owned(),
        user: format!("users/{}", world.user),
    };
    let mut first = world.pooler.lease_slots(instance, request(2)).await.unwrap();
    assert_eq!(
        first.next().await.unwrap().unwrap().kind,
        Some(Kind::Granted(true))
    );
    let mut second = world.pooler.lease_slots(instance, request(1)).await.unwrap();
    assert_eq!(
        second.next().await.unwrap().unwrap().kind,
        Some(Kind::QueuePosition(0))
    );
    drop(first);
    let granted = tokio::time::timeout(DEADLINE, async {
        loop {
            if second.next().await.unwrap().unwrap().kind == Some(Kind::Granted(true)) {
                break;
            }
        }
    });
    granted.await.unwrap();
    let refused = world
        .pooler
        .lease_slots(instance, request(9))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
}

#[tokio::test]
async fn two_registrations_of_one_server_share_its_budget() {
    let world = World::new().await;
    let login = world.cluster.endpoint().superuser();
    let endpoint = Endpoint::new("localhost", world.cluster.port().into()).unwrap();
    let (store, key, database) = (&world.store, &world.opening_key, world.target.name());
    let twin = register(
        store,
        key,
        world.user,
        "twin",
        database,
        &login,
        endpoint,
        SslMode::Disable,
    )
    .await;
    assert_ne!(twin.instance_id, world.server.instance_id);
    world.set_budget(2, 0).await;
    let on_twin = OpenSessionRequest {
        server: format!("servers/{}", twin.id),
        ..impatient(&world)
    };
    world.open().await;
    world.try_open(on_twin.clone()).await.unwrap();
    let merged = world.store.servers().get(twin.id).await.unwrap().unwrap();
    assert_eq!(merged.instance_id, world.server.instance_id);
    let refused = world.try_open(on_twin).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
}

#[tokio::test]
async fn connections_of_an_absorbed_instance_count_in_the_older_ones_budget() {
    let world = World::new().await;
    let login = world.cluster.endpoint().superuser();
    let endpoint = Endpoint::new("localhost", world.cluster.port().into()).unwrap();
    let (store, key, database) = (&world.store, &world.opening_key, world.target.name());
    let twin = register(
        store,
        key,
        world.user,
        "twin",
        database,
        &login,
        endpoint,
        SslMode::Disable,
    )
    .await;
    world.set_budget(2, 0).await;
    let on_twin = OpenSessionRequest {
        server: format!("servers/{}", twin.id),
        ..impatient(&world)
    };
    // The younger is used first: nobody can know yet that it is the older one's twin.
    let first = name(&world.try_open(on_twin.clone()).await.unwrap());
    world.open().await;
    let refused = world.try_open(impatient(&world)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    world.pooler.close_session(&world.token, first).await.unwrap();
    world.try_open(on_twin.clone()).await.unwrap();
    let refused = world.try_open(on_twin).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
}

#[tokio::test]
async fn twins_that_are_recognised_at_once_share_one_budget() {
    let world = Arc::new(World::new().await);
    let login = world.cluster.endpoint().superuser();
    let endpoint = Endpoint::new("localhost", world.cluster.port().into()).unwrap();
    let (store, key, database) = (&world.store, &world.opening_key, world.target.name());
    let twin = register(
        store,
        key,
        world.user,
        "twin",
        database,
        &login,
        endpoint,
        SslMode::Disable,
    )
    .await;
    world.open().await;
    world.set_budget(3, 0).await;
    let mut opens = JoinSet::new();
    for _ in 0..6 {
        let world = Arc::clone(&world);
        opens.spawn(async move {
            // Long enough for those that are sent on to the older one.
            let wait = prost_types::Duration { seconds: 5, nanos: 0 };
            let request = OpenSessionRequest {
                server: format!("servers/{}", twin.id),
                queue_timeout: Some(wait),
                ..world.open_request()
            };
            world.try_open(request).await
        });
    }
    let opened = opens.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(opened, 2);
}

#[tokio::test]
async fn backend_that_does_not_end_keeps_its_slot() {
    let world = World::new().await;
    world.set_budget(1, 0).await;
    let session = world.open().await;
    let stubborn = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(60); \
                    EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let (_, stream) = start(&world, session, request(stubborn)).await;
    drop(stream);
    world.pooler.close_session(&world.token, session).await.unwrap();
    let refused = world.try_open(impatient(&world)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    let killer = world.cluster.connect().await;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
    killer.query_one(sql, &[&world.target.name()]).await.unwrap();
    eventually(DEADLINE, "the slot is free", async || {
        world.try_open(impatient(&world)).await
    })
    .await;
}

#[tokio::test]
async fn backend_that_hangs_in_its_start_up_keeps_its_slot() {
    // A cluster of its own: nobody can log in meanwhile.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await));
    let login = cluster.endpoint().superuser();
    let world = World::with(cluster, &login, SslMode::Disable).await;
    world.set_budget(1, 0).await;
    let session = world.open().await;
    world.pooler.close_session(&world.token, session).await.unwrap();

    let locker = cluster.connect().await;
    let lock = "BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE";
    locker.batch_execute(lock).await.unwrap();
    let given_up = world.try_open(impatient(&world)).await.unwrap_err();
    assert_eq!(reason(&given_up), ErrorReason::TargetUnreachable);
    // For a while nobody tries again. Then there is no slot to try it with.
    eventually(DEADLINE, "the slot is missed", async || {
        let refused = world.try_open(impatient(&world)).await.unwrap_err();
        (reason(&refused) == ErrorReason::BudgetExhausted)
            .then_some(())
            .ok_or(refused.to_string())
    })
    .await;

    locker.batch_execute("ROLLBACK").await.unwrap();
    eventually(DEADLINE, "the slot is free", async || {
        world.try_open(impatient(&world)).await
    })
    .await;
}

#[tokio::test]
async fn instance_has_one_owner() {
    let world = World::new().await;
    world.open().await;
    let verifier = verifier(&world.store).await;
    let other = start_pooler(&world.store, world.cluster, &world.opening_key, verifier).await;
    let refused = other
        .open_session(&world.token, world.server.instance_id, world.open_request())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::Moved);
    let owner = world.pooler.id().to_string();
    assert_eq!(
        refused.get_details_error_info().unwrap().metadata["pooler"],
        owner
    );
    world.pooler.drain(tokio::time::Instant::now()).await;
    eventually(DEADLINE, "the other pooler takes over", async || {
        other
            .open_session(&world.token, world.server.instance_id, world.open_request())
            .await
    })
    .await;
}
