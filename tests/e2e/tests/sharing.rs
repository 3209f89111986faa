//! Many sessions on few backends, through real processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::backends::{BackendSampler, client_backends};
use e2e::memory::resident_bytes;
use e2e::world::{Caller, set_budget};
use e2e::{Client, World, WorldOptions};
use futures::future::join_all;
use harness::eventually;
use rpc::query::v1::ExecutionOutcome;
use rpc::server::v1::InspectServerRequest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Code;

use crate::long_tests;
use crate::worlds::alone;

const DEADLINE: Duration = Duration::from_secs(60);
/// The budget of an instance unless somebody says otherwise.
const BUDGET: (i32, i32) = (20, 5);
/// gRPC servers let a connection have so many calls at a time, so that a client of many sessions needs several.
const CALLS_PER_CONNECTION: usize = 50;

/// Connections of one user, to the world's API instances in turn.
fn clients(world: &World, caller: &Caller, calls: usize) -> Vec<Client> {
    let token = caller.a().token().unwrap();
    let urls = world.apis().iter().map(e2e::RoleProcess::url).cycle();
    urls.take(calls.div_ceil(CALLS_PER_CONNECTION))
        .map(|url| Client::anonymous(&url).with_token(token))
        .collect()
}

/// Waits until nothing is connected to the target any more but what rests, and gives that up too.
async fn nothing_is_left(world: &World) {
    let administrator = world.create_administrator().await;
    let administrator = administrator.a();
    let server = &world.register_target(administrator).await;
    set_budget(administrator, server, 1, 0).await.unwrap();
    let outside = world.target().cluster().connect().await;
    eventually(
        DEADLINE,
        "backends are given up",
        async || match client_backends(&outside).await {
            0 | 1 => Ok(()),
            more => Err(format!("{more} backends")),
        },
    )
    .await;
    set_budget(administrator, server, BUDGET.0, BUDGET.1)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_sessions_share_fifteen_backends() {
    let world = alone().await;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let clients = clients(&world, &caller, 30 * 2);
    let sampler = BackendSampler::start(world.target().cluster()).await;
    let mut sessions = JoinSet::new();
    for number in 0..30 {
        let (client, server) = (clients[number % clients.len()].clone(), server.clone());
        sessions.spawn(async move {
            let session = client.open_auto(&server).await.unwrap();
            for _ in 0..5 {
                let run = client
                    .execute(&session.name, "SELECT pg_sleep(0.1)")
                    .await
                    .unwrap();
                assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{run:?}");
            }
            session
        });
    }
    let sessions = sessions.join_all().await;
    let counts = sampler.finish().await;
    assert!((10..=15).contains(&counts.most), "{counts:?}");
    for session in &sessions {
        caller.a().close_session(session).await.unwrap();
    }
    nothing_is_left(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_opened_while_roles_of_their_instance_are_looked_at() {
    let world = World::start(WorldOptions::default()).await;
    let administrator = world.create_administrator().await;
    let caller = world.create_user().await;
    // Nobody has connected to it yet.
    let first = world.register_target(administrator.a()).await;
    let second = world.register_target(caller.a()).await;
    let look = async |client: &Client, name: &str| {
        let request = InspectServerRequest {
            name: name.to_owned(),
            ..InspectServerRequest::default()
        };
        client.servers().inspect_server(request).await.unwrap();
    };
    let opened = join_all((0..30).map(|_| async {
        let session = caller.b().open_auto(&second).await.unwrap();
        let run = caller.a().execute(&session.name, "SELECT 1").await.unwrap();
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{run:?}");
        session
    }));
    let (.., opened) = tokio::join!(look(administrator.a(), &first), look(caller.a(), &second), opened);
    for session in opened {
        caller.a().close_session(&session).await.unwrap();
    }
}

/// One of many sessions.
struct Worker {
    client: Client,
    server: String,
    number: usize,
    /// Sessions that are opened at a time.
    opening: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    /// Statements of its user that have ended.
    done: Arc<AtomicU64>,
}

impl Worker {
    /// Runs transactions of every kind in turn until it is stopped. Returns how many rows it committed.
    async fn run(self) -> u64 {
        let Self {
            client,
            number,
            stop,
            done,
            ..
        } = &self;
        let permit = self.opening.acquire().await.unwrap();
        let session = loop {
            match client.open_auto(&self.server).await {
                Ok(session) => break session.name,
                // Two cores have much to do here: the config database may not answer in time.
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
        };
        drop(permit);
        let run = async |sql: &str| {
            let run = client.execute(&session, sql).await.unwrap();
            done.fetch_add(1, Ordering::Relaxed);
            run
        };
        let mut committed = 0;
        for turn in *number.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match turn % 4 {
                0 => assert_eq!(
                    run(&format!("SELECT {turn} + 1")).await.value(),
                    (turn + 1).to_string()
                ),
                1 => {
                    let begun = run(&format!("BEGIN; INSERT INTO sharing VALUES ({number})")).await;
                    assert_eq!(begun.tags, ["BEGIN", "INSERT 0 1"], "{:?}", begun.errors);
                    assert_eq!(run("COMMIT").await.tags, ["COMMIT"]);
                    committed += 1;
                }
                2 => {
                    run("BEGIN; INSERT INTO sharing VALUES (-1)").await;
                    assert_eq!(run("SELECT 1/0").await.sqlstate(), "22012");
                    assert_eq!(run("ROLLBACK").await.tags, ["ROLLBACK"]);
                }
                _ => {
                    run(&format!("SET application_name = 'session {number}'")).await;
                    assert_eq!(
                        run("SHOW application_name").await.value(),
                        format!("session {number}")
                    );
                    assert_eq!(run("RESET application_name").await.tags, ["RESET"]);
                }
            }
        }
        committed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_sessions_of_four_users_share_twenty_backends() {
    const SESSIONS: usize = 500;
    let world = alone().await;
    let administrator = world.create_administrator().await;
    let users = join_all((0..4).map(|_| world.create_user())).await;
    let servers = join_all(users.iter().map(|user| world.register_target(user.a()))).await;
    // All of them lead to one instance, as the first connection shows.
    for (user, server) in users.iter().zip(&servers) {
        let session = user.a().open_session(server).await.unwrap();
        user.a().close_session(&session).await.unwrap();
    }
    let own = world.register_target(administrator.a()).await;
    set_budget(administrator.a(), &own, 20, 0).await.unwrap();
    let outside = world.target().database().connect().await;
    outside
        .batch_execute("DROP TABLE IF EXISTS sharing; CREATE TABLE sharing (session int); GRANT ALL ON sharing TO PUBLIC")
        .await
        .unwrap();
    let sampler = BackendSampler::start(world.target().cluster()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done: Vec<Arc<AtomicU64>> = (0..4).map(|_| Arc::default()).collect();
    let opening = Arc::new(Semaphore::new(20));
    let mut sessions = JoinSet::new();
    let clients: Vec<Vec<Client>> = users.iter().map(|user| clients(&world, user, SESSIONS)).collect();
    // In turn, so that nobody has all of theirs open before others begin.
    for number in 0..SESSIONS {
        for ((clients, server), done) in clients.iter().zip(&servers).zip(&done) {
            let worker = Worker {
                client: clients[number % clients.len()].clone(),
                server: server.clone(),
                number,
                opening: Arc::clone(&opening),
                stop: Arc::clone(&stop),
                done: Arc::clone(done),
            };
            sessions.spawn(worker.run());
        }
    }
    let each = || {
        done.iter()
            .map(|done| done.load(Ordering::Relaxed))
            .collect::<Vec<_>>()
    };
    // Every user's sessions have come to run something, most of them more than once.
    eventually(4 * DEADLINE, "everybody runs something", async || {
        let each = each();
        each.iter()
            .all(|done| *done >= 500)
            .then_some(())
            .ok_or(format!("{each:?}"))
    })
    .await;
    let before = each();
    let logins = async || {
        let sql = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
        outside.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    let logins_before = logins().await;
    sleep(Duration::from_secs(5)).await;
    let logins = logins().await - logins_before;
    let shares: Vec<u64> = each()
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    stop.store(true, Ordering::Relaxed);
    let committed: u64 = sessions.join_all().await.into_iter().sum();
    let counts = sampler.finish().await;
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(*least > 0 && *most <= 2 * least, "{shares:?}");
    // Users in balance leave each other's backends alone: no login for every statement.
    let statements: u64 = shares.iter().sum();
    assert!(
        u64::try_from(logins).unwrap() * 10 < statements,
        "{logins} logins"
    );
    assert!(counts.most <= 20, "{counts:?}");
    let row = outside.query_one(
        "SELECT count(*) FILTER (WHERE session >= 0), count(*) FILTER (WHERE session < 0) FROM sharing",
        &[],
    );
    let row = row.await.unwrap();
    assert_eq!(
        (row.get::<_, i64>(0), row.get::<_, i64>(1)),
        (i64::try_from(committed).unwrap(), 0)
    );
    for (user, server) in users.iter().zip(&servers) {
        close_all(user.a(), server).await;
    }
    nothing_is_left(&world).await;
}

async fn close_all(client: &Client, server: &str) {
    loop {
        let request = rpc::query::v1::ListSessionsRequest {
            parent: server.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let sessions = client
            .query()
            .list_sessions(request)
            .await
            .unwrap()
            .into_inner()
            .sessions;
        if sessions.is_empty() {
            return;
        }
        for session in sessions {
            client.close_session(&session).await.unwrap();
        }
    }
}

/// Many, where time does not matter.
fn idle_sessions() -> u64 {
    if long_tests() { 10_000 } else { 1500 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_session_costs_little_memory_and_no_backend() {
    let world = alone().await;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let clients = clients(&world, &caller, 200);
    let pooler = world.poolers()[0].pid().unwrap();
    let use_one = async |client: Client| {
        let session = client.open_auto(&server).await.unwrap();
        // Its error is kept, and that is the most that is kept of it.
        let run = client
            .execute(&session.name, "SELECT 'nothing but text'::int")
            .await
            .unwrap();
        assert_eq!(run.sqlstate(), "22P02");
    };
    // What the first ones cost the others do not.
    for _ in 0..200 {
        use_one(clients[0].clone()).await;
    }
    let before = resident_bytes(pooler);
    let sessions = idle_sessions();
    let rounds = sessions / 50;
    for _ in 0..rounds {
        join_all((0..50).map(|number| use_one(clients[number % clients.len()].clone()))).await;
    }
    let each = (resident_bytes(pooler) - before) / sessions;
    assert!(each <= 10_000, "{each} bytes for each of {sessions} sessions");
    let outside = world.target().cluster().connect().await;
    assert!(client_backends(&outside).await <= 15);
    nothing_is_left(&world).await;
    close_all(caller.a(), &server).await;
}
