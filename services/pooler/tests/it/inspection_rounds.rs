//! Looking at roles from time to time, with nobody there who uses them.

use std::sync::Arc;
use std::time::Duration;

use audit::{AuditLog, Filter, Kind, LogOptions, WriterRole};
use domain::access::{ServerPolicy, Tenancy};
use domain::clock::SystemClock;
use domain::endpoint::{Endpoint, SslMode};
use domain::limits::Limit;
use domain::random::SystemRandom;
use harness::eventually;
use pooler::{Pooler, PoolerOptions};
use rpc::query::v1::{OpenSessionRequest, SessionAccess, SessionMode};
use rpc::server::v1::{EnforcementLevel, InspectServerRequest, Inspection};
use sealing::Opener;
use sessions::Sessions as _;
use store::instances::InstanceChange;
use store::servers::Server;
use telemetry::metrics::Source as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inspection::Reader;
use crate::support::{DEADLINE, World, egress, register, verifier};

const OFTEN: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_hours(1);

/// A pooler that looks often whether there is something to look at.
async fn start(world: &World, interval: Duration, options: PoolerOptions) -> Pooler {
    Pooler::start(
        world.store.clone(),
        verifier(&world.store).await,
        Opener::new([world.opening_key.clone()]),
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
        PoolerOptions {
            inspection_interval: interval,
            inspection_round: OFTEN,
            ..options
        },
    )
    .await
    .unwrap()
}

fn options(world: &World) -> PoolerOptions {
    PoolerOptions {
        // Whatever else the machine does, no instance changes hands by itself.
        lease: Duration::from_mins(10),
        ..PoolerOptions::new("127.0.0.1:2".to_owned(), egress(&[world.cluster.port()]))
    }
}

/// Signs the world's own pooler off, which does not look by itself.
async fn sign_off(world: &World) {
    world.pooler.drain(Instant::now()).await;
}

/// How many rights beyond reading were found, of each role of a server that was looked at.
async fn found(world: &World, server: &Server) -> Vec<i64> {
    let sql = format!(
        "SELECT read_only_count FROM pgmoor.inspections WHERE server_id = '{}' ORDER BY 1",
        server.id
    );
    let rows = world.config().connect().await.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn comes_to(world: &World, server: &Server, expected: &[i64]) {
    eventually(DEADLINE, "it is found what the role may do", async || {
        let found = found(world, server).await;
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

/// What a pooler counts under a label's value.
fn counted(pooler: &Pooler, name: &str, value: &str) -> u64 {
    let families = pooler.families();
    let family = families.iter().find(|family| family.name == name).unwrap();
    let sample = family
        .samples
        .iter()
        .find(|sample| sample.labels.iter().any(|(_, label)| label == value));
    sample.unwrap().value as u64
}

fn looks(pooler: &Pooler) -> u64 {
    counted(pooler, "pgmoor_inspections", "found")
}

fn failures(pooler: &Pooler) -> u64 {
    counted(pooler, "pgmoor_inspections", "failed")
}

async fn inspect(world: &World, pooler: &Pooler, max_age: Duration) -> Inspection {
    let request = InspectServerRequest {
        name: format!("servers/{}", world.server.id),
        max_age: Some(max_age.try_into().unwrap()),
        ..InspectServerRequest::default()
    };
    let found = pooler
        .inspect_server(&world.token, world.server.instance_id, request)
        .await;
    found.unwrap().inspection.unwrap()
}

#[tokio::test]
async fn right_that_a_role_was_given_is_found_with_no_session_open() {
    let reader = Reader::provisioned().await;
    let world = &reader.world;
    sign_off(world).await;
    let often = LogOptions {
        flush_interval: Duration::from_millis(50),
        ..LogOptions::default()
    };
    let (log, writer) = AuditLog::new(
        WriterRole::Pooler,
        often,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    );
    TaskTracker::new().spawn(writer.run(world.store.clone(), CancellationToken::new()));
    let audited = PoolerOptions {
        audit: Some(log),
        ..options(world)
    };
    let pooler = start(world, Duration::from_secs(1), audited).await;
    comes_to(world, &world.server, &[0]).await;
    reader.execute("GRANT INSERT ON public.t TO {r}").await;
    comes_to(world, &world.server, &[1]).await;
    let told = eventually(DEADLINE, "the audit trail says so", async || {
        let filter = Filter {
            kinds: vec![Kind::Inspection],
            ..Filter::default()
        };
        let kept = world.store.audit().after(0, &filter, 10).await.unwrap();
        kept.into_iter()
            .next()
            .map(|kept| kept.record.entry)
            .ok_or("nothing")
    })
    .await;
    assert_eq!(told.resources, [format!("servers/{}", world.server.id)]);
    assert_eq!((told.outcome.as_str(), told.count), ("READ_ONLY_BEST_EFFORT", 1));
    assert_eq!(told.role, reader.login.user);
    assert_eq!(told.database, world.target.name());
    assert_eq!(counted(&pooler, "pgmoor_enforcement_lost", "read_only"), 1);
    // It was never kept within its databases, so that was not lost.
    assert_eq!(counted(&pooler, "pgmoor_enforcement_lost", "tenancy"), 0);
    assert_eq!(pooler.session_count(), 0);
    // What is taken away is found as well, and nothing to be told of.
    reader.execute("REVOKE INSERT ON public.t FROM {r}").await;
    comes_to(world, &world.server, &[0]).await;
    assert_eq!(counted(&pooler, "pgmoor_enforcement_lost", "read_only"), 1);
}

#[tokio::test]
async fn role_is_looked_at_once_however_many_poolers_there_are() {
    let world = World::new().await;
    sign_off(&world).await;
    let login = world.cluster.endpoint().superuser();
    let another = async |name: &str| {
        world
            .register(name, world.target.name(), &login, SslMode::Disable)
            .await
    };
    let servers = [another("two").await, another("three").await];
    let poolers = [
        start(&world, HOUR, options(&world)).await,
        start(&world, HOUR, options(&world)).await,
    ];
    for server in servers.iter().chain([&world.server]) {
        comes_to(&world, server, &[1]).await;
    }
    let four = another("four").await;
    comes_to(&world, &four, &[1]).await;
    // They lead to one instance, which has one owner.
    let [one, other] = poolers;
    let (owner, other) = if looks(&one) > 0 {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!((looks(&owner), looks(&other)), (4, 0));
    // Once the instance is the other's, that looks at what was not looked at yet, and at nothing else.
    owner.drain(Instant::now()).await;
    let five = another("five").await;
    comes_to(&world, &five, &[1]).await;
    let six = another("six").await;
    comes_to(&world, &six, &[1]).await;
    assert_eq!((looks(&owner), looks(&other)), (4, 2));
}

#[tokio::test]
async fn server_that_does_not_answer_holds_up_no_other() {
    let world = World::new().await;
    sign_off(&world).await;
    let login = world.cluster.endpoint().superuser();
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let down = register(
        &world.store,
        &world.opening_key,
        world.user,
        "down",
        world.target.name(),
        &login,
        Endpoint::new("127.0.0.1", port.into()).unwrap(),
        SslMode::Disable,
    )
    .await;
    let change = InstanceChange {
        limits: [(Limit::ServerConnectTimeout, Some(1))].into_iter().collect(),
        ..InstanceChange::default()
    };
    world
        .store
        .instances()
        .update(down.instance_id, change)
        .await
        .unwrap();
    let options = PoolerOptions::new("127.0.0.1:2".to_owned(), egress(&[world.cluster.port(), port]));
    let pooler = start(&world, HOUR, options).await;
    comes_to(&world, &world.server, &[1]).await;
    eventually(DEADLINE, "the silent one is given up", async || {
        let failures = failures(&pooler);
        if failures == 1 { Ok(()) } else { Err(failures) }
    })
    .await;
    // It is left alone for a while, and the rounds go on.
    let another = world
        .register("another", world.target.name(), &login, SslMode::Disable)
        .await;
    comes_to(&world, &another, &[1]).await;
    assert_eq!((looks(&pooler), failures(&pooler)), (2, 1));
    assert!(found(&world, &down).await.is_empty());
}

#[tokio::test]
async fn database_that_cannot_be_looked_at_rests_alone() {
    let world = World::new().await;
    sign_off(&world).await;
    // It is the first that is tried.
    let databases = ["a_database_that_is_not_there", "postgres", world.target.name()];
    let databases = databases.map(|name| name.parse().unwrap()).into();
    let policy = ServerPolicy::staging(Tenancy::Multi { databases });
    let servers = world.store.servers();
    servers.set_policy(world.server.id, &policy, None).await.unwrap();
    let pooler = start(&world, HOUR, options(&world)).await;
    comes_to(&world, &world.server, &[1, 1]).await;
    // That the others were looked at does not bring it back in the next rounds.
    let login = world.cluster.endpoint().superuser();
    for name in ["two", "three"] {
        let next = world
            .register(name, world.target.name(), &login, SslMode::Disable)
            .await;
        comes_to(&world, &next, &[1]).await;
    }
    assert_eq!((looks(&pooler), failures(&pooler)), (4, 1));
}

#[tokio::test]
async fn look_gives_way_while_all_connections_are_in_use() {
    let world = World::new().await;
    sign_off(&world).await;
    world.set_budget(1, 0).await;
    let holding = start(&world, HOUR, options(&world)).await;
    comes_to(&world, &world.server, &[1]).await;
    let instance = world.server.instance_id;
    let session = holding.open_session(&world.token, instance, world.open_request());
    let session = session.await.unwrap();
    // One more to look at, of which there is no connection.
    let login = world.cluster.endpoint().superuser();
    let another = world
        .register("another", world.target.name(), &login, SslMode::Disable)
        .await;
    eventually(DEADLINE, "the look is put off", async || {
        let failures = failures(&holding);
        if failures == 1 { Ok(()) } else { Err(failures) }
    })
    .await;
    assert!(found(&world, &another).await.is_empty());
    // Nothing of the session was touched.
    let described = holding
        .get_session(&world.token, session.name.parse().unwrap())
        .await;
    assert_eq!(described.unwrap().backend_pid, session.backend_pid);
}

#[tokio::test]
async fn what_was_found_is_known_to_the_next_pooler_without_a_look() {
    let reader = Reader::provisioned().await;
    let world = &reader.world;
    let first = inspect(world, &world.pooler, Duration::ZERO).await;
    assert_eq!(
        first.read_only.as_ref().unwrap().level(),
        EnforcementLevel::Enforced
    );
    assert!(!first.tenancy.as_ref().unwrap().reasons.is_empty());
    sign_off(world).await;
    let next = start(world, HOUR, options(world)).await;
    assert_eq!(inspect(world, &next, HOUR).await, first);
    let request = OpenSessionRequest {
        mode: SessionMode::Auto.into(),
        access: SessionAccess::ReadOnly.into(),
        ..world.open_request()
    };
    let opened = next
        .open_session(&world.token, world.server.instance_id, request)
        .await;
    let name = opened.unwrap().name.parse().unwrap();
    let enforcement = eventually(DEADLINE, "the session knows", async || {
        let session = next.get_session(&world.token, name).await.unwrap();
        let enforcement = session.enforcement.unwrap();
        enforcement
            .check_time
            .is_some()
            .then_some(enforcement)
            .ok_or("nothing")
    })
    .await;
    assert_eq!(Some(enforcement), first.read_only);
    assert_eq!(looks(&next), 0);
}
