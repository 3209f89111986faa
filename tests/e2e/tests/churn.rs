//! Clients that go on while backends, API instances and poolers go away: what they are told is true.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use e2e::backends::{BackendSampler, client_backends};
use e2e::world::{set_budget, set_limits};
use e2e::{Client, Collected, World, WorldOptions, reason};
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{ExecutionOutcome, OpenSessionRequest, SessionMode};
use rpc::server::v1::InstanceLimits;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Status};

use crate::long_tests;

const CLIENTS: usize = 16;
const BUDGET: i64 = 12;
const SOON: Duration = Duration::from_secs(60);
/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client knows of a row it wanted to insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is there.
    Committed,
    /// It is not there.
    Nothing,
    /// It may be there, and no more than once.
    Unknown,
}

/// What a call that failed says about what it was to do.
fn fate(status: &Status) -> Fate {
    match reason::of(status) {
        // The API instance itself is gone, or the pooler was lost while it served the call.
        (_, ErrorReason::Unspecified | ErrorReason::OutcomeUnknown) => Fate::Unknown,
        // Everything else says that nothing was run.
        (
            Code::Unavailable
            | Code::Aborted
            | Code::NotFound
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Cancelled,
            _,
        ) => Fate::Nothing,
        (code, reason) => panic!("{code:?} {reason:?}: {}", reason::text(status)),
    }
}

/// A client with a session of its own, which it opens again when it is told that it is lost.
struct Worker {
    number: usize,
    clients: Vec<Client>,
    server: String,
    session: Option<String>,
    next_id: Arc<AtomicI64>,
    calls: usize,
    known: HashMap<i64, Fate>,
    /// How often each kind of thing happened.
    seen: HashMap<String, u64>,
}

impl Worker {
    fn client(&mut self) -> Client {
        self.calls += 1;
        self.clients[self.calls % self.clients.len()].clone()
    }

    fn see(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    async fn session(&mut self) -> Option<String> {
        if self.session.is_none() {
            let mode = if self.number.is_multiple_of(4) {
                SessionMode::Pinned
            } else {
                SessionMode::Auto
            };
            let request = OpenSessionRequest {
                server: self.server.clone(),
                mode: mode.into(),
                idle_timeout: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
                ..OpenSessionRequest::default()
            };
            let client = self.client();
            match timeout(PATIENCE, client.query().open_session(request)).await {
                Ok(Ok(opened)) => self.session = opened.into_inner().session.map(|session| session.name),
                Ok(Err(status)) => {
                    self.see(format!("open: {:?}", reason::of(&status)));
                    sleep(Duration::from_millis(100)).await;
                }
                Err(_) => self.see("open: no answer"),
            }
        }
        self.session.clone()
    }

    /// Runs a statement. What stands in the way is told as what it means for the statement.
    async fn run(&mut self, sql: &str) -> Result<Collected, Fate> {
        let Some(session) = self.session().await else {
            return Err(Fate::Nothing);
        };
        let client = self.client();
        let status = match timeout(PATIENCE, client.execute(&session, sql)).await {
            Ok(Ok(run)) => return self.ended(run),
            Ok(Err(status)) => status,
            Err(_) => {
                self.see("run: no answer");
                self.session = None;
                return Err(Fate::Unknown);
            }
        };
        self.see(format!("run: {:?}", reason::of(&status)));
        let fate = fate(&status);
        match reason::of(&status).1 {
            ErrorReason::SessionStateLost | ErrorReason::ResourceNotFound => self.session = None,
            // Its statement may still run: this client does not wait for it.
            _ if fate == Fate::Unknown => self.session = None,
            _ => sleep(Duration::from_millis(20)).await,
        }
        Err(fate)
    }

    /// What an execution that has ended means.
    fn ended(&mut self, run: Collected) -> Result<Collected, Fate> {
        match run.outcome() {
            ExecutionOutcome::Succeeded => Ok(run),
            // The server says so itself before it ends the connection: nothing was committed.
            ExecutionOutcome::Failed if !run.errors.is_empty() => {
                self.see(format!("sql: {}", run.sqlstate()));
                Err(Fate::Nothing)
            }
            outcome => {
                self.see(format!("outcome: {outcome:?}"));
                Err(Fate::Unknown)
            }
        }
    }

    fn new_id(&mut self, fate: Fate) -> i64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.known.insert(id, fate);
        id
    }

    async fn insert(&mut self) {
        let id = self.new_id(Fate::Unknown);
        let fate = match self.run(&format!("INSERT INTO churn VALUES ({id})")).await {
            Ok(run) => {
                assert_eq!(run.tags, ["INSERT 0 1"]);
                Fate::Committed
            }
            Err(fate) => fate,
        };
        self.known.insert(id, fate);
    }

    async fn select(&mut self) {
        let from = self.calls;
        let sql = format!(
            "SELECT i, md5(i::text), repeat('x', 100) FROM generate_series({from}, {from} + 50) AS i"
        );
        if let Ok(run) = self.run(&sql).await {
            assert_eq!(run.rows.len(), 51, "{sql}");
            for (row, wanted) in run.rows.iter().zip(from..) {
                assert_eq!(row[0].as_deref(), Some(wanted.to_string().as_str()), "{sql}");
                assert_eq!(row[2].as_deref().map(str::len), Some(100));
            }
        }
    }

    /// Two rows in one transaction: both or none.
    async fn transaction(&mut self) {
        let (first, second) = (self.new_id(Fate::Unknown), self.new_id(Fate::Unknown));
        let mut fate = Fate::Nothing;
        let begun = self
            .run(&format!("BEGIN; INSERT INTO churn VALUES ({first})"))
            .await;
        match begun {
            Ok(_) => match self.run(&format!("INSERT INTO churn VALUES ({second})")).await {
                Ok(_) => match self.run("COMMIT").await {
                    Ok(run) if run.tags == ["COMMIT"] => fate = Fate::Committed,
                    Ok(_) => {}
                    Err(told) => fate = told,
                },
                Err(_) => self.roll_back().await,
            },
            Err(_) => self.roll_back().await,
        }
        // What did not come to the COMMIT is not there, whatever became of the statements.
        self.known.insert(first, fate);
        self.known.insert(second, fate);
    }

    /// A session whose transaction is in doubt is not used again.
    async fn roll_back(&mut self) {
        if self.session.is_some() && self.run("ROLLBACK").await.is_err() {
            self.session = None;
        }
    }

    async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            match self.calls % 3 {
                0 => self.insert().await,
                1 => self.select().await,
                _ => self.transaction().await,
            }
        }
        self
    }
}

/// Ends a backend of ours every two seconds, for ever.
async fn kill_backends(connection: &harness::Connection) {
    let mut turn = 0_i64;
    loop {
        sleep(Duration::from_secs(2)).await;
        turn += 1;
        connection
            .execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE \
                 application_name LIKE 'pgmoor/%' ORDER BY pid OFFSET $1::bigint % 5 LIMIT 1) AS one",
                &[&turn],
            )
            .await
            .unwrap();
    }
}

/// Kills an API instance every five seconds, has one pooler leave and kills another.
async fn kill_processes(world: &mut World, until: Instant) {
    let began = Instant::now();
    let whole = until.duration_since(began);
    let (drain_at, kill_at) = (began + whole.mul_f64(0.25), began + whole.mul_f64(0.6));
    let (mut drained, mut killed) = (false, false);
    let mut turn = 0;
    while Instant::now() < until {
        sleep_until(until.min(Instant::now() + Duration::from_secs(5))).await;
        let api = turn % 2;
        world.apis_mut()[api].kill9().await;
        world.apis_mut()[api].start_again().await;
        turn += 1;
        if !drained && Instant::now() >= drain_at {
            drained = true;
            let owner = owner(world).await;
            world.poolers_mut()[owner].stop().await;
            world.poolers_mut()[owner].start_again().await;
        }
        if !killed && Instant::now() >= kill_at {
            killed = true;
            let owner = owner(world).await;
            world.poolers_mut()[owner].kill9().await;
            world.poolers_mut()[owner].start_again().await;
        }
    }
    assert!(drained && killed);
}

/// The pooler that owns the instance.
async fn owner(world: &World) -> usize {
    eventually(SOON, "somebody owns the instance", async || {
        crate::takeover::owner(world).await.ok_or("nobody")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_anything_wrong_while_everything_goes_away() {
    let mut world = World::start(WorldOptions {
        poolers: 3,
        workers: 0,
        takeover: Some(("3s".to_owned(), "3s".to_owned())),
        ..WorldOptions::default()
    })
    .await;
    let administrator = world.create_administrator().await;
    let server = world.register_target(administrator.a()).await;
    let budget = i32::try_from(BUDGET).unwrap();
    set_budget(administrator.a(), &server, budget, 3).await.unwrap();
    let limits = InstanceLimits {
        server_idle_timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        ..InstanceLimits::default()
    };
    set_limits(administrator.a(), &server, limits).await.unwrap();
    let outside = world.target().cluster().connect().await;
    let database = world.target().database().connect().await;
    database
        .batch_execute("CREATE TABLE churn (id bigint); GRANT ALL ON churn TO PUBLIC")
        .await
        .unwrap();

    let token = administrator.a().token().unwrap().to_owned();
    let urls: Vec<String> = world.apis().iter().map(e2e::RoleProcess::url).collect();
    let (stop, next_id) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(1)));
    let mut working = JoinSet::new();
    for number in 0..CLIENTS {
        let worker = Worker {
            number,
            clients: urls
                .iter()
                .map(|url| Client::anonymous(url).with_token(&token))
                .collect(),
            server: server.clone(),
            session: None,
            next_id: Arc::clone(&next_id),
            calls: number,
            known: HashMap::new(),
            seen: HashMap::new(),
        };
        working.spawn(worker.work(Arc::clone(&stop)));
    }
    let sampler = BackendSampler::start(world.target().cluster()).await;
    let whole = Duration::from_secs(if long_tests() { 60 } else { 20 });
    let until = Instant::now() + whole;
    tokio::select! {
        () = kill_backends(&outside) => {}
        () = kill_processes(&mut world, until) => {}
    }
    stop.store(true, Ordering::Relaxed);
    let workers = timeout(SOON, working.join_all())
        .await
        .expect("clients come to an end");
    let counts = sampler.finish().await;
    assert!(counts.most <= BUDGET, "{counts:?}");

    // A transaction whose client does not know its end may end late.
    eventually(SOON, "nothing runs any more", async || {
        let row = outside
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgmoor/%' AND state <> 'idle'",
                &[],
            )
            .await
            .unwrap();
        (row.get::<_, i64>(0) == 0).then_some(()).ok_or("something does")
    })
    .await;
    let rows = database
        .query("SELECT id, count(*) FROM churn GROUP BY id", &[])
        .await
        .unwrap();
    let there: HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (mut committed, mut unknown) = (0, 0);
    let mut seen: HashMap<String, u64> = HashMap::new();
    for worker in &workers {
        for (id, fate) in &worker.known {
            let count = there.get(id).copied().unwrap_or_default();
            match fate {
                Fate::Committed => assert_eq!(count, 1, "{id} was committed"),
                Fate::Nothing => assert_eq!(count, 0, "{id} came to nothing"),
                Fate::Unknown => assert!(count <= 1, "{id} is there {count} times"),
            }
            committed += i32::from(*fate == Fate::Committed);
            unknown += i32::from(*fate == Fate::Unknown);
        }
        for (what, times) in &worker.seen {
            *seen.entry(what.clone()).or_default() += times;
        }
    }
    let known: usize = workers.iter().map(|worker| worker.known.len()).sum();
    assert!(
        there
            .keys()
            .all(|id| workers.iter().any(|worker| worker.known.contains_key(id)))
    );
    println!("{committed} of {known} committed, {unknown} unknown, {counts:?}, {seen:?}");
    assert!(committed > 100, "{committed} of {known}: {seen:?}");

    drop(workers);
    eventually(
        SOON,
        "what nobody uses is given up",
        async || match client_backends(&outside).await {
            0 => Ok(()),
            more => Err(format!("{more} backends")),
        },
    )
    .await;
}
