//! Two poolers, of which one is killed, stopped or asked to leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::backends::{BackendSampler, client_backends};
use e2e::world::{Caller, create_server, set_budget};
use e2e::{Client, Running, World, WorldOptions, reason};
use futures::future::join_all;
use harness::eventually;
use rpc::backup::v1::StartBackupRequest;
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::{GetOperationRequest, OperationState};
use rpc::pool::v1::ListBudgetsRequest;
use rpc::query::v1::{GetSessionRequest, PinReason, Session};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::long_tests;
use crate::paging::suspending;

pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Connections on the target in all.
const BUDGET: i64 = 8;

/// A world of two poolers that are quick to take over from each other.
async fn two_poolers(workers: usize) -> World {
    World::start(WorldOptions {
        poolers: 2,
        workers,
        takeover: Some(("3s".to_owned(), "4s".to_owned())),
        ..WorldOptions::default()
    })
    .await
}

/// Which of the world's poolers owns the only instance.
pub(crate) async fn owner(world: &World) -> Option<usize> {
    let config = world.config_database().database().connect().await;
    let address = config
        .query_opt(
            "SELECT p.address FROM pgmoor.instance_owners AS o JOIN pgmoor.poolers AS p USING (incarnation) \
             WHERE NOT o.released AND o.lease_until > clock_timestamp()",
            &[],
        )
        .await
        .unwrap()?
        .get::<_, String>(0);
    let is_it = |pooler: &e2e::RoleProcess| address.ends_with(&format!(":{}", pooler.port()));
    world.poolers().iter().position(is_it)
}

async fn register(world: &World) -> (Caller, String) {
    let administrator = world.create_administrator().await;
    let server = world.register_target(administrator.a()).await;
    set_budget(administrator.a(), &server, i32::try_from(BUDGET).unwrap(), 3)
        .await
        .unwrap();
    (administrator, server)
}

async fn pins(client: &Client, session: &Session) -> Vec<PinReason> {
    let request = GetSessionRequest {
        name: session.name.clone(),
    };
    let answer = client.query().get_session(request).await.unwrap().into_inner();
    answer.session.unwrap().pins().collect()
}

/// Runs a statement until no more than an outage stands in its way. Returns what came of it then.
async fn after_the_outage(client: &Client, session: &Session, sql: &str) -> Result<e2e::Collected, Status> {
    eventually(SOON, "the session is served again", async || {
        match client.execute(&session.name, sql).await {
            // A call into a process that is stopped ends with its connection: it can be repeated, being a SELECT.
            Err(status) if [Code::Unavailable, Code::Unknown].contains(&status.code()) => {
                Err(reason::text(&status))
            }
            other => Ok(other),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_nothing_held_outlive_a_killed_pooler_and_the_others_are_told() {
    let mut world = two_poolers(0).await;
    let (caller, server) = register(&world).await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    let free = a.open_auto(&server).await.unwrap();
    assert_eq!(a.execute(&free.name, "SELECT 1").await.unwrap().value(), "1");
    let held = b.open_auto(&server).await.unwrap();
    b.execute(&held.name, "SET search_path TO 'elsewhere'")
        .await
        .unwrap();
    assert_eq!(pins(&a, &held).await, [PinReason::Setting]);
    let suspended = a.open_auto(&server).await.unwrap();
    let page = Running::start(&b, suspending(&suspended.name)).await.unwrap();
    page.finish().await.unwrap();
    assert_eq!(pins(&a, &suspended).await, [PinReason::Portal]);
    let pinned = a.open_session(&server).await.unwrap();
    let busy = b.open_auto(&server).await.unwrap();
    let running = b.start(&busy.name, "SELECT pg_sleep(600)").await.unwrap();
    let backend = running.backend_pid();

    // What holds a session is written down once it has for a while.
    let config = world.config_database().database().connect().await;
    eventually(SOON, "the pins are on the record", async || {
        let sql = "SELECT count(*) FROM pgmoor.sessions WHERE pins IN ('SETTING', 'PORTAL')";
        let row = config.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0) == 2).then_some(()).ok_or("not yet")
    })
    .await;
    let sampler = BackendSampler::start(world.target().cluster()).await;
    let owner = owner(&world).await.unwrap();
    world.poolers_mut()[owner].kill9().await;

    let unknown = running.finish().await;
    reason::expect(unknown, Code::Unknown, ErrorReason::OutcomeUnknown);
    let told = after_the_outage(&a, &free, "SELECT 2").await;
    let told = reason::expect(told, Code::Aborted, ErrorReason::SessionRecovered);
    assert_eq!(reason::metadata(&told, "incarnation").as_deref(), Some("2"));
    // Once, through whichever instance.
    assert_eq!(b.execute(&free.name, "SELECT 2").await.unwrap().value(), "2");
    for (session, was) in [(&held, "SETTING"), (&suspended, "PORTAL"), (&pinned, "MODE")] {
        let lost = after_the_outage(&b, session, "SELECT 1").await;
        let lost = reason::expect(lost, Code::NotFound, ErrorReason::SessionStateLost);
        assert_eq!(reason::metadata(&lost, "cause").as_deref(), Some("pooler_lost"));
        assert_eq!(reason::metadata(&lost, "pins").as_deref(), Some(was));
    }
    let told = after_the_outage(&b, &busy, "SELECT 3").await;
    reason::expect(told, Code::Aborted, ErrorReason::SessionRecovered);
    assert_eq!(a.execute(&busy.name, "SELECT 3").await.unwrap().value(), "3");
    let outside = world.target().cluster().connect().await;
    eventually(SOON, "what the killed pooler left running is ended", async || {
        let row = outside
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1",
                &[&backend],
            )
            .await
            .unwrap();
        (row.get::<_, i64>(0) == 0).then_some(()).ok_or("still there")
    })
    .await;
    // And all of it is there for others again.
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(a.open_session(&server).await.unwrap());
    }
    let counts = sampler.finish().await;
    assert!(counts.most <= BUDGET, "{counts:?}");
    let left = config
        .query_one(
            "SELECT (SELECT count(*) FROM pgmoor.instance_predecessors) + (SELECT count(*) FROM \
             pgmoor.pooler_connections AS c WHERE NOT EXISTS (SELECT FROM pgmoor.poolers AS p WHERE \
             p.incarnation = c.incarnation AND p.lease_until > clock_timestamp()))",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(left.get::<_, i64>(0), 0, "something is left of the killed pooler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_move_unnoticed_when_their_pooler_is_asked_to_leave() {
    let mut world = two_poolers(0).await;
    let (caller, server) = register(&world).await;
    let clients = [caller.a().clone(), caller.b().clone()];
    let stop = Arc::new(AtomicBool::new(false));
    let mut working = JoinSet::new();
    for number in 0..12_usize {
        let (client, stop) = (clients[number % 2].clone(), Arc::clone(&stop));
        let session = client.open_auto(&server).await.unwrap();
        working.spawn(async move {
            let mut done = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let wanted = format!("{}", done + 1);
                let run = client.execute(&session.name, &format!("SELECT {done} + 1")).await;
                assert_eq!(
                    run.unwrap_or_else(|status| panic!("{}", reason::text(&status)))
                        .value(),
                    wanted
                );
                done += 1;
            }
            let request = GetSessionRequest { name: session.name };
            let session = client.query().get_session(request).await.unwrap().into_inner();
            (done, session.session.unwrap().incarnation)
        });
    }
    let a = &clients[0];
    let idle = a.open_auto(&server).await.unwrap();
    a.execute(&idle.name, "SELECT 1").await.unwrap();
    // It is held when its pooler is asked to leave, and free before its time is up.
    let transaction = a.open_auto(&server).await.unwrap();
    a.execute(
        &transaction.name,
        "CREATE TABLE moved (n int); BEGIN; INSERT INTO moved VALUES (1)",
    )
    .await
    .unwrap();
    let pinned = a.open_session(&server).await.unwrap();
    let sampler = BackendSampler::start(world.target().cluster()).await;

    let owner = owner(&world).await.unwrap();
    world.poolers()[owner].terminate();
    eventually(
        SOON,
        "the other pooler serves the instance",
        async || match self::owner(&world).await {
            Some(other) if other != owner => Ok(()),
            other => Err(format!("{other:?} owns it")),
        },
    )
    .await;
    let committed = clients[1].execute(&transaction.name, "COMMIT").await.unwrap();
    assert_eq!(committed.tags, ["COMMIT"]);
    // Its time is up before the PINNED session ends.
    world.poolers_mut()[owner].wait_until_ended().await;
    stop.store(true, Ordering::Relaxed);
    for (done, incarnation) in working.join_all().await {
        assert!(done > 0);
        assert_eq!(incarnation, 1, "nobody was told of anything");
    }
    assert_eq!(
        clients[1].execute(&idle.name, "SELECT 5").await.unwrap().value(),
        "5"
    );
    let count = a
        .execute(&transaction.name, "SELECT count(*) FROM moved")
        .await
        .unwrap();
    assert_eq!(count.value(), "1");
    let lost = after_the_outage(a, &pinned, "SELECT 1").await;
    let lost = reason::expect(lost, Code::NotFound, ErrorReason::SessionStateLost);
    assert_eq!(reason::metadata(&lost, "cause").as_deref(), Some("drained"));
    assert_eq!(reason::metadata(&lost, "pins").as_deref(), Some("MODE"));
    let counts = sampler.finish().await;
    assert!(counts.most <= BUDGET, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_backup_are_counted_through_a_takeover() {
    let mut world = two_poolers(1).await;
    let (caller, server) = register(&world).await;
    let login = world.target().login().user.clone();
    let database = world.target().database();
    let made = format!("SET ROLE {login}; CREATE SCHEMA held; CREATE TABLE held.t (n int)");
    database
        .execute(&format!(
            "GRANT CREATE ON DATABASE {} TO {login}",
            database.name()
        ))
        .await;
    database.execute(&made).await;
    // pg_dump waits for as long as this is held.
    let holder = database.connect().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE held.t IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let request = StartBackupRequest {
        server: server.clone(),
        schemas: vec!["held".to_owned()],
        ..StartBackupRequest::default()
    };
    let started = caller
        .a()
        .backups()
        .start_backup(request)
        .await
        .unwrap()
        .into_inner();
    let name = started.operation.unwrap().name;
    let counted = async || {
        let request = ListBudgetsRequest::default();
        let answer = caller.b().pools().list_budgets(request).await;
        let budgets = answer
            .map_err(|status| reason::text(&status))?
            .into_inner()
            .budgets;
        match budgets.as_slice() {
            [budget] => Ok((budget.worker_connections, budget.elsewhere_connections)),
            other => Err(format!("{other:?}")),
        }
    };
    eventually(SOON, "the backup has its connection", async || {
        match counted().await? {
            (1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let owner = owner(&world).await.unwrap();
    world.poolers_mut()[owner].kill9().await;
    // The new owner hears of it from the worker, and nothing else is left of the old one.
    eventually(SOON, "the new owner counts it", async || {
        match counted().await? {
            (1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let request = GetOperationRequest { name: name.clone() };
    let running = caller
        .a()
        .operations()
        .get_operation(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(running.operation.unwrap().state(), OperationState::Running);
    holder.batch_execute("ROLLBACK").await.unwrap();
    let ended = caller.a().operation_ended(&name).await.unwrap();
    assert_eq!(ended.state(), OperationState::Succeeded, "{ended:?}");
    eventually(SOON, "its connection is given back", async || {
        match counted().await? {
            (0, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_under_a_server_that_was_deleted_are_found_gone_through_another() {
    let mut world = World::start(WorldOptions {
        poolers: 2,
        workers: 0,
        egress_allow: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        takeover: Some(("3s".to_owned(), "4s".to_owned())),
        ..WorldOptions::default()
    })
    .await;
    let caller = world.create_administrator().await;
    let client = caller.a().clone();
    let server = world.register_target(&client).await;
    let other = rpc::server::v1::Server {
        endpoints: vec![rpc::server::v1::Endpoint {
            host: "localhost".to_owned(),
            port: i32::from(world.target().cluster().port()),
        }],
        ..world.target_server()
    };
    let password = &world.target().login().password;
    let other = create_server(&client, other, password).await.unwrap();
    // They are known to be one once both were connected to; then the owner of that one has a connection under the second.
    for server in [&other, &server, &server] {
        client.open_session(server).await.unwrap();
    }
    let request = rpc::server::v1::DeleteServerRequest {
        name: server.clone(),
        ..Default::default()
    };
    client.servers().delete_server(request).await.unwrap();
    let config = world.config_database().database().connect().await;
    let incarnation = config
        .query_one(
            "SELECT incarnation::text FROM pgmoor.instance_owners WHERE NOT released",
            &[],
        )
        .await
        .unwrap()
        .get::<_, String>(0);
    let left = async || {
        let sql = "SELECT count(*) FROM pgmoor.pooler_connections AS c \
             WHERE incarnation::text = $1 AND NOT EXISTS (SELECT FROM pgmoor.servers AS s WHERE s.id = c.server_id)";
        config
            .query_one(sql, &[&incarnation])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    eventually(
        SOON,
        "a connection under the deleted server is on the record",
        async || {
            if left().await > 0 {
                Ok(())
            } else {
                Err("there is none")
            }
        },
    )
    .await;
    let owner = owner(&world).await.unwrap();
    world.poolers_mut()[owner].kill9().await;
    eventually(
        SOON,
        "nothing is left of the pooler that was killed",
        async || match left().await {
            0 => Ok(()),
            other => Err(other),
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_one_postgres_driven_through_two_poolers_have_one_budget() {
    let world = World::start(WorldOptions {
        poolers: 2,
        workers: 0,
        egress_allow: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        ..WorldOptions::default()
    })
    .await;
    let administrator = world.create_administrator().await;
    let port = i32::from(world.target().cluster().port());
    let endpoint = |host: &str| rpc::server::v1::Endpoint {
        host: host.to_owned(),
        port,
    };
    let names: [&[&str]; 4] = [
        &["127.0.0.1"],
        &["localhost"],
        &["127.0.0.1", "localhost"],
        &["localhost", "127.0.0.1"],
    ];
    let mut servers = Vec::new();
    for hosts in names {
        let server = rpc::server::v1::Server {
            endpoints: hosts.iter().map(|host| endpoint(host)).collect(),
            ..world.target_server()
        };
        let password = &world.target().login().password;
        let server = create_server(administrator.a(), server, password).await.unwrap();
        let budget = i32::try_from(BUDGET).unwrap();
        set_budget(administrator.a(), &server, budget, 0).await.unwrap();
        servers.push(server);
    }
    // That they are one turns out while they are used, and the first connection under each name tells it.
    let counts = drive(&world, &administrator, &servers).await;
    assert!((2..=BUDGET + 3).contains(&counts.most), "{counts:?}");
    let config = world.config_database().database().connect().await;
    let row = config
        .query_one("SELECT count(*) FROM pgmoor.instances", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    let counts = drive(&world, &administrator, &servers).await;
    assert!((2..=BUDGET).contains(&counts.most), "{counts:?}");
}

/// Has sessions on all servers run statements at the same time, through both API instances.
async fn drive(world: &World, caller: &Caller, servers: &[String]) -> e2e::backends::Counts {
    let sampler = BackendSampler::start(world.target().cluster()).await;
    let clients = [caller.a(), caller.b()];
    let working = (0..24_usize).map(|number| work_on(clients[number % 2], &servers[number % servers.len()]));
    join_all(working).await;
    sampler.finish().await
}

/// Has a session run statements. That it has to wait for something now and then is not what is asked here.
async fn work_on(client: &Client, server: &str) {
    let session = eventually(SOON, "the session is open", async || {
        match client.open_auto(server).await {
            Err(status) if status.code() == Code::Unavailable => Err(reason::text(&status)),
            other => Ok(other.unwrap_or_else(|status| panic!("{}", reason::text(&status)))),
        }
    })
    .await;
    for _ in 0..10 {
        let run = after_the_outage(client, &session, "SELECT pg_sleep(0.02)").await;
        let run = run.unwrap_or_else(|status| panic!("{}", reason::text(&status)));
        assert!(run.errors.is_empty(), "{run:?}");
    }
    eventually(SOON, "the session is closed", async || {
        let closed = client.close_session(&session).await;
        closed.map_err(|status| reason::text(&status))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_pooler_that_comes_back_finds_its_successor_and_the_budget_holds() {
    let world = two_poolers(0).await;
    let (caller, server) = register(&world).await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    let free = a.open_auto(&server).await.unwrap();
    a.execute(&free.name, "SELECT 1").await.unwrap();
    let pinned = a.open_session(&server).await.unwrap();
    let sampler = BackendSampler::start(world.target().cluster()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut working = JoinSet::new();
    // They want all there is, from whichever pooler, all the time.
    for number in 0..10_usize {
        let client = if number % 2 == 0 { a.clone() } else { b.clone() };
        let (server, stop) = (server.clone(), Arc::clone(&stop));
        working.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let Ok(opened) =
                    tokio::time::timeout(Duration::from_secs(2), client.open_session(&server)).await
                else {
                    continue;
                };
                let Ok(session) = opened else {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let _ = tokio::time::timeout(
                    Duration::from_secs(2),
                    client.execute(&session.name, "SELECT pg_sleep(0.05)"),
                )
                .await;
                let _ = tokio::time::timeout(Duration::from_secs(2), client.close_session(&session)).await;
            }
        });
    }
    let target = world.target().cluster().connect().await;
    eventually(SOON, "they work", async || match client_backends(&target).await {
        // Besides that of the PINNED session and the one that rests.
        count if count > 2 => Ok(()),
        other => Err(other),
    })
    .await;
    let owner = owner(&world).await.unwrap();
    world.poolers()[owner].freeze();
    eventually(
        SOON,
        "the other pooler serves the instance",
        async || match self::owner(&world).await {
            Some(other) if other != owner => Ok(()),
            other => Err(format!("{other:?} owns it")),
        },
    )
    .await;
    let told = after_the_outage(&b, &free, "SELECT 2").await;
    reason::expect(told, Code::Aborted, ErrorReason::SessionRecovered);
    let lost = after_the_outage(&a, &pinned, "SELECT 1").await;
    let lost = reason::expect(lost, Code::NotFound, ErrorReason::SessionStateLost);
    assert_eq!(reason::metadata(&lost, "cause").as_deref(), Some("pooler_lost"));
    let stopped = if long_tests() { 30 } else { 5 };
    sleep(Duration::from_secs(stopped)).await;
    world.poolers()[owner].thaw();
    // It goes on where it was, with connections that are gone and an instance that is not its own.
    let config = world.config_database().database().connect().await;
    eventually(SOON, "both poolers are alive", async || {
        let sql = "SELECT count(*) FROM pgmoor.poolers WHERE lease_until > clock_timestamp()";
        match config.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) {
            2 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for client in [&a, &b] {
        let lost = after_the_outage(client, &pinned, "SELECT 1").await;
        reason::expect(lost, Code::NotFound, ErrorReason::SessionStateLost);
    }
    assert_eq!(a.execute(&free.name, "SELECT 3").await.unwrap().value(), "3");
    stop.store(true, Ordering::Relaxed);
    working.join_all().await;
    let counts = sampler.finish().await;
    assert!(counts.most <= BUDGET, "{counts:?}");
    assert!(world.poolers().iter().all(e2e::RoleProcess::is_running));
    let outside = world.target().cluster().connect().await;
    eventually(
        SOON,
        "what nobody uses is given up",
        async || match client_backends(&outside).await {
            0..=3 => Ok(()),
            more => Err(format!("{more} backends")),
        },
    )
    .await;
}
