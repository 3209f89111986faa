//! What a pooler shows of itself, and what administrators have it do.

use domain::id::UserId;
use domain::limits::Limit;
use domain::random::SystemRandom;
use domain::session::SessionName;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::pool::v1::{
    Backend, BackendState, Budget, Client, ClientState, ConnectionClass, DatabaseStats, Pool, PoolMode,
    Waiter,
};
use rpc::pooler::v1::{Section, ShowPoolerResponse};
use rpc::query::v1::{ExecuteRequest, ExecutionOutcome, OpenSessionRequest, PinReason, SessionMode};
use sessions::UserToken;
use sessions::pools::Pools as _;
use store::users::NewUser;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{DEADLINE, Run, World, name, reason, split};

/// A world with somebody who may see and do everything.
struct Administered {
    world: World,
    administrator: UserToken,
}

impl std::ops::Deref for Administered {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Administered {
    async fn new() -> Self {
        let world = World::new().await;
        let new = NewUser {
            id: UserId::generate(&SystemRandom),
            username: "root".parse().unwrap(),
            display_name: "Root".parse().unwrap(),
            password_hash: None,
            administrator: true,
        };
        let user = world.store.users().create(new).await.unwrap();
        let label = "test".parse().unwrap();
        let grant = world
            .logins
            .create_api_token(user.id, label, None, None)
            .await
            .unwrap();
        Self {
            administrator: UserToken(grant.token),
            world,
        }
    }

    async fn show(&self, section: Section) -> ShowPoolerResponse {
        show(&self.world, &self.administrator, section).await
    }

    /// The only pool there is.
    async fn pool(&self) -> Pool {
        let mut pools = self.show(Section::Pools).await.pools;
        assert!(pools.len() <= 1, "{pools:?}");
        pools.pop().unwrap_or_default()
    }

    async fn clients(&self) -> Vec<Client> {
        self.show(Section::Clients).await.clients
    }

    async fn backends(&self) -> Vec<Backend> {
        self.show(Section::Backends).await.backends
    }

    async fn budget(&self) -> Budget {
        self.show(Section::Budgets).await.budgets.remove(0)
    }

    async fn stats(&self) -> DatabaseStats {
        self.show(Section::Stats).await.stats.remove(0)
    }

    async fn waiters(&self) -> Vec<Waiter> {
        self.show(Section::Waiters).await.waiters
    }

    async fn set_paused(&self, paused: bool) {
        let instance = self.server.instance_id;
        assert!(self.store.instances().set_paused(instance, paused).await.unwrap());
        let told = self.pooler.refresh_instance(&self.administrator, instance).await;
        told.unwrap();
    }

    async fn pid(&self, session: SessionName) -> i32 {
        self.value(session, "SELECT pg_backend_pid()")
            .await
            .parse()
            .unwrap()
    }

    /// Waits until the pool looks like that.
    async fn pool_becomes(&self, what: &str, like: impl Fn(&Pool) -> bool) -> Pool {
        eventually(DEADLINE, what, async || {
            let pool = self.pool().await;
            if like(&pool) {
                Ok(pool)
            } else {
                Err(format!("{pool:?}"))
            }
        })
        .await
    }

    /// Begins a statement and returns what reads it to its end.
    async fn begin(&self, session: SessionName, sql: &str, readers: &mut JoinSet<Run>) {
        let request = ExecuteRequest {
            script: Some(split(sql)),
            ..ExecuteRequest::default()
        };
        let world = &self.world;
        let (pooler, token) = (world.pooler.clone(), world.token.clone());
        readers.spawn(async move {
            let events = sessions::Sessions::execute(&pooler, &token, session, request).await;
            Run::read(events.unwrap()).await
        });
    }
}

async fn show(world: &World, token: &UserToken, section: Section) -> ShowPoolerResponse {
    let mut asked = world.pooler.show(token, section).await.unwrap();
    asked.answers.remove(0)
}

fn cause(status: &Status) -> String {
    status.get_details_error_info().unwrap().metadata["cause"].clone()
}

#[tokio::test]
async fn columns_say_what_sessions_do() {
    let world = Administered::new().await;
    world.set_budget(4, 0).await;
    let pinned = world.open().await;
    let pool = world.pool().await;
    assert_eq!((pool.cl_active, pool.sv_active, pool.sv_pinned_idle), (1, 1, 1));
    assert_eq!(pool.pool_mode(), PoolMode::Session);
    assert_eq!(pool.database, world.target.name());
    assert_eq!(pool.server, format!("servers/{}", world.server.id));
    assert_eq!(pool.owner, format!("users/{}", world.user));

    // One that runs something, one that is pinned, one at rest.
    let mut readers = JoinSet::new();
    let (busy, set, resting) = (
        world.open_auto().await,
        world.open_auto().await,
        world.open_auto().await,
    );
    world.run(set, "SET work_mem = '5MB'").await;
    world.run(resting, "SELECT 1").await;
    let lock = "SELECT pg_advisory_xact_lock(7)";
    world.run(pinned, "BEGIN; SELECT pg_advisory_xact_lock(7)").await;
    world.begin(busy, lock, &mut readers).await;
    let pool = world
        .pool_becomes("one is busy", |pool| pool.sv_active == 3)
        .await;
    assert_eq!((pool.cl_active, pool.cl_waiting), (4, 0), "{pool:?}");
    assert_eq!(
        (pool.sv_pinned, pool.sv_pinned_idle, pool.sv_idle),
        (2, 2, 1),
        "{pool:?}"
    );
    assert_eq!(
        (pool.sv_tested, pool.sv_login, pool.maxwait),
        (0, 0, 0),
        "{pool:?}"
    );
    assert_eq!(pool.pool_mode(), PoolMode::Mixed);
    let pins: Vec<_> = pool
        .pin_reasons
        .iter()
        .map(|pin| (pin.reason(), pin.sessions))
        .collect();
    let wanted = [
        (PinReason::Mode, 1),
        (PinReason::Transaction, 1),
        (PinReason::Setting, 1),
    ];
    assert_eq!(pins, wanted);

    // The same, one by one.
    let clients = world.clients().await;
    let client = |session: SessionName| {
        let name = session.to_string();
        clients.iter().find(|client| client.name == name).unwrap()
    };
    assert_eq!(client(busy).state(), ClientState::Active);
    assert_eq!(client(pinned).state(), ClientState::Idle);
    assert_eq!(client(pinned).mode(), SessionMode::Pinned);
    assert!(client(resting).link.is_empty());
    let backends = world.backends().await;
    assert_eq!(backends.len(), 4);
    for backend in &backends {
        let name = format!(
            "instances/{}/backends/{}",
            world.server.instance_id, backend.remote_pid
        );
        assert_eq!(backend.name, name);
        assert_eq!(backend.port, i32::from(world.cluster.port()));
    }
    let linked = backends
        .iter()
        .find(|backend| backend.name == client(busy).link)
        .unwrap();
    assert_eq!(
        (linked.link.as_str(), linked.state()),
        (client(busy).name.as_str(), BackendState::Active)
    );
    let at_rest = backends
        .iter()
        .find(|backend| backend.state() == BackendState::Idle)
        .unwrap();
    assert_eq!(at_rest.resting_session, resting.to_string());

    // Two more than there is room for: one gets what is at rest, one waits.
    for _ in 0..2 {
        let session = world.open_auto().await;
        world.begin(session, lock, &mut readers).await;
    }
    let pool = world
        .pool_becomes("one waits", |pool| pool.cl_waiting == 1 && pool.sv_active == 4)
        .await;
    assert_eq!((pool.sv_idle, pool.cl_active), (0, 5), "{pool:?}");
    let pool = world
        .pool_becomes("the wait is seen", |pool| pool.maxwait_us > 0)
        .await;
    assert!(pool.maxwait < 60, "{pool:?}");
    let waiters = world.waiters().await;
    assert_eq!(waiters.len(), 1);
    assert_eq!((waiters[0].position, waiters[0].count), (0, 1));
    assert_eq!(waiters[0].connection_class(), ConnectionClass::Interactive);
    assert_eq!(waiters[0].user, format!("users/{}", world.user));
    let waiting = world.clients().await;
    let waiting: Vec<_> = waiting
        .iter()
        .filter(|client| client.state() == ClientState::Waiting)
        .collect();
    assert_eq!(waiting[0].name, waiters[0].claimant);
    let budget = world.budget().await;
    assert_eq!(
        (budget.max_connections, budget.current_connections, budget.waiting),
        (4, 4, 1)
    );
    assert_eq!(budget.pinned_connections + budget.interactive_connections, 4);

    world.run(pinned, "COMMIT").await;
    while let Some(run) = readers.join_next().await {
        assert_eq!(run.unwrap().outcome(), ExecutionOutcome::Succeeded);
    }
    let pool = world.pool().await;
    assert_eq!((pool.cl_waiting, pool.sv_pinned), (0, 2), "{pool:?}");
}

#[tokio::test]
async fn backend_that_rested_long_is_used_and_one_in_the_making_logs_in() {
    let world = Administered::new().await;
    let session = world.open_auto().await;
    world.set_limits(&[(Limit::ServerCheckDelay, 1)]).await;
    world.run(session, "SELECT 1").await;
    world
        .pooler
        .refresh_instance(&world.administrator, world.server.instance_id)
        .await
        .unwrap();
    let pool = world
        .pool_becomes("it has rested long", |pool| pool.sv_used == 1)
        .await;
    assert_eq!((pool.sv_idle, pool.sv_active), (0, 0));
}

#[tokio::test]
async fn statements_transactions_and_bytes_are_counted() {
    let world = Administered::new().await;
    let session = world.open_auto().await;
    world.run(session, "SELECT 1; SELECT repeat('x', 10000)").await;
    world
        .run(session, "BEGIN; SELECT pg_sleep(0.02); SELECT 1; COMMIT")
        .await;
    let stats = world.stats().await;
    assert_eq!(stats.total_query_count, 6, "{stats:?}");
    assert_eq!(stats.total_xact_count, 3, "{stats:?}");
    assert_eq!(stats.total_server_assignment_count, 2, "{stats:?}");
    assert!((10_000..20_000).contains(&stats.total_sent), "{stats:?}");
    assert!((50..1000).contains(&stats.total_received), "{stats:?}");
    assert!(stats.total_query_time >= 20_000, "{stats:?}");
    assert!(stats.total_xact_time >= stats.total_query_time, "{stats:?}");
    // The first wait was that for a new connection.
    assert!(stats.total_wait_time > 0, "{stats:?}");
    // What we ask ourselves does not count.
    assert_eq!(stats.avg_query_count, 0, "{stats:?}");
    let [backend] = &world.backends().await[..] else {
        panic!()
    };
    assert!(backend.bytes_received > stats.total_sent, "{backend:?}");
}

#[tokio::test]
async fn paused_instance_gives_nothing_until_it_is_resumed() {
    let world = Administered::new().await;
    let pinned = world.open().await;
    let (auto, set) = (world.open_auto().await, world.open_auto().await);
    world.run(auto, "SELECT 1").await;
    world.run(set, "SET my.thing = 'kept'").await;
    world.set_paused(true).await;
    // What nobody needs is closed; what a session holds stays with it, and can be used.
    let pool = world.pool_becomes("idle backends are closed", |pool| {
        pool.sv_idle + pool.sv_tested == 0
    });
    assert!(pool.await.paused);
    assert_eq!(world.value(pinned, "SELECT 1").await, "1");
    assert_eq!(world.value(set, "SHOW my.thing").await, "kept");
    assert!(world.budget().await.paused);

    let mut readers = JoinSet::new();
    world.begin(auto, "SELECT 2", &mut readers).await;
    world.pool_becomes("it waits", |pool| pool.cl_waiting == 1).await;
    let refused = world.try_open(OpenSessionRequest {
        queue_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..world.open_request()
    });
    let refused = refused.await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, ErrorReason::InstancePaused)
    );
    // It still waits.
    assert_eq!(world.pool().await.cl_waiting, 1);
    assert!(readers.try_join_next().is_none());
    world.set_paused(false).await;
    let run = readers.join_next().await.unwrap().unwrap();
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    assert!(!world.pool().await.paused);
}

#[tokio::test]
async fn backend_that_comes_free_during_a_pause_is_closed() {
    let world = Administered::new().await;
    let auto = world.open_auto().await;
    world.run(auto, "BEGIN").await;
    world.set_paused(true).await;
    assert_eq!(world.value(auto, "SELECT 1").await, "1");
    assert_eq!(world.pool().await.sv_active, 1);
    world.run(auto, "COMMIT").await;
    let gone = |pool: &Pool| pool.sv_active + pool.sv_idle + pool.sv_tested + pool.sv_closing == 0;
    world.pool_becomes("it is closed", gone).await;
    assert_eq!(world.budget().await.current_connections, 0);
}

#[tokio::test]
async fn pause_is_known_to_whoever_takes_the_instance() {
    let world = Administered::new().await;
    let instances = world.store.instances();
    instances
        .set_paused(world.server.instance_id, true)
        .await
        .unwrap();
    let since = instances
        .get(world.server.instance_id)
        .await
        .unwrap()
        .unwrap()
        .pause_time;
    instances
        .set_paused(world.server.instance_id, true)
        .await
        .unwrap();
    let again = instances
        .get(world.server.instance_id)
        .await
        .unwrap()
        .unwrap()
        .pause_time;
    assert_eq!(since, again);
    // Nobody has told this pooler.
    let auto = world.open_auto().await;
    let mut readers = JoinSet::new();
    world.begin(auto, "SELECT 1", &mut readers).await;
    let pool = world.pool_becomes("it waits", |pool| pool.cl_waiting == 1).await;
    assert!(pool.paused && pool.sv_login == 0, "{pool:?}");
    world.set_paused(false).await;
    assert_eq!(
        readers.join_next().await.unwrap().unwrap().outcome(),
        ExecutionOutcome::Succeeded
    );
}

#[tokio::test]
async fn reconnect_replaces_backends_as_they_come_free() {
    let world = Administered::new().await;
    let (idle, held) = (world.open_auto().await, world.open_auto().await);
    let before = (world.pid(idle).await, world.pid(held).await);
    world.run(held, "BEGIN").await;
    let held_before = world.pid(held).await;
    let instance = world.server.instance_id;
    let asked = world
        .pooler
        .reconnect_instance(&world.administrator, instance)
        .await
        .unwrap();
    assert_eq!(asked.answers, [2]);
    assert_ne!(world.pid(idle).await, before.0);
    // A transaction is not cut.
    assert_eq!(world.pid(held).await, held_before);
    let backends = world.backends().await;
    let old = backends
        .iter()
        .find(|backend| backend.remote_pid == held_before)
        .unwrap();
    assert!(old.close_needed);
    world.run(held, "COMMIT").await;
    assert_ne!(world.pid(held).await, held_before);
}

#[tokio::test]
async fn killed_session_is_lost_with_its_cause() {
    let world = Administered::new().await;
    let (pinned, auto, busy) = (world.open().await, world.open_auto().await, world.open().await);
    let mut readers = JoinSet::new();
    world.begin(busy, "SELECT pg_sleep(600)", &mut readers).await;
    world
        .pool_becomes("it is busy", |pool| pool.sv_active - pool.sv_pinned_idle == 1)
        .await;
    for session in [pinned, auto, busy] {
        let asked = world
            .pooler
            .kill_session(&world.administrator, session)
            .await
            .unwrap();
        assert_eq!(asked.answers, [true]);
        let request = ExecuteRequest {
            script: Some(split("SELECT 1")),
            ..ExecuteRequest::default()
        };
        let Err(lost) = world.try_execute(session, request).await else {
            panic!("it runs")
        };
        assert_eq!(reason(&lost), ErrorReason::SessionStateLost);
        assert_eq!(cause(&lost), "killed");
    }
    let run = readers.join_next().await.unwrap().unwrap();
    assert_ne!(run.outcome(), ExecutionOutcome::Succeeded);
    let again = world
        .pooler
        .kill_session(&world.administrator, busy)
        .await
        .unwrap();
    assert_eq!(again.answers, [false]);
}

#[tokio::test]
async fn killed_backend_ends_what_is_pinned_there_and_nothing_else() {
    let world = Administered::new().await;
    let (pinned, resting, busy) = (
        world.open().await,
        world.open_auto().await,
        world.open_auto().await,
    );
    let pids = (world.pid(pinned).await, world.pid(resting).await);
    let instance = world.server.instance_id;
    let kill = async |pid| {
        let asked = world
            .pooler
            .kill_backend(&world.administrator, instance, pid)
            .await;
        asked.unwrap().answers[0]
    };
    assert!(kill(pids.0).await);
    eventually(DEADLINE, "the session ends", async || {
        let described = sessions::Sessions::get_session(&world.pooler, &world.token, pinned).await;
        match described {
            Err(lost) if reason(&lost) == ErrorReason::SessionStateLost => {
                assert_eq!(cause(&lost), "killed");
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    assert!(kill(pids.1).await);
    let request = ExecuteRequest {
        script: Some(split("SELECT 1")),
        ..ExecuteRequest::default()
    };
    let Err(recovered) = world.try_execute(resting, request).await else {
        panic!("it runs")
    };
    assert_eq!(reason(&recovered), ErrorReason::SessionRecovered);
    assert_ne!(world.pid(resting).await, pids.1);

    let mut readers = JoinSet::new();
    world.begin(busy, "SELECT pg_sleep(600)", &mut readers).await;
    let backend = eventually(DEADLINE, "it is busy", async || {
        let backends = world.backends().await;
        let busy = backends
            .into_iter()
            .find(|backend| backend.link == busy.to_string());
        busy.ok_or("nobody is busy")
    });
    let pid = backend.await.remote_pid;
    assert!(kill(pid).await);
    let run = readers.join_next().await.unwrap().unwrap();
    assert_eq!(run.outcome(), ExecutionOutcome::Lost);
    // The server was asked to stop, so that it lets go long before the statement would have ended.
    eventually(DEADLINE, "the server lets go", async || {
        let backends = world.backends().await;
        if backends.iter().all(|backend| backend.remote_pid != pid) {
            Ok(())
        } else {
            Err(format!("{backends:?}"))
        }
    })
    .await;
    assert_ne!(world.pid(busy).await, pid);
    assert!(!kill(pid).await);
}

#[tokio::test]
async fn member_sees_what_is_theirs_and_does_nothing() {
    let world = Administered::new().await;
    let session = world.open().await;
    let other = world.other_user().await;
    let pooler = &world.pooler;
    let sections = [
        Section::Pools,
        Section::Clients,
        Section::Backends,
        Section::Stats,
        Section::Budgets,
        Section::Waiters,
        Section::Pooler,
    ];
    for section in sections {
        let shown = show(&world, &other, section).await;
        assert_eq!(shown, ShowPoolerResponse::default(), "{section:?}");
    }
    let own = show(&world, &world.token, Section::Clients).await.clients;
    assert_eq!(own.len(), 1);
    assert_eq!(
        show(&world, &world.token, Section::Backends).await.backends.len(),
        1
    );
    assert_eq!(show(&world, &world.token, Section::Pools).await.pools.len(), 1);
    let budgets = show(&world, &world.token, Section::Budgets).await.budgets;
    assert_eq!(budgets[0].own_connections, 1);
    assert_eq!(show(&world, &world.token, Section::Pooler).await.pooler, None);

    let instance = world.server.instance_id;
    let refused = [
        pooler.refresh_instance(&world.token, instance).await.map(drop),
        pooler.reconnect_instance(&world.token, instance).await.map(drop),
        pooler.drain_pooler(&world.token, pooler.id()).await,
        pooler.kill_session(&world.token, session).await.map(drop),
        pooler.kill_backend(&world.token, instance, 1).await.map(drop),
    ];
    for refused in refused {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(reason(&status), ErrorReason::PermissionMissing);
    }
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn pooler_that_was_told_to_drain_serves_what_it_has() {
    let world = Administered::new().await;
    let (pinned, _auto) = (world.open().await, world.open_auto().await);
    let drained = world.pooler.drain_pooler(&world.administrator, world.pooler.id());
    drained.await.unwrap();
    // What nothing holds is let go of for another pooler, and so is the instance.
    eventually(DEADLINE, "one session is left", async || {
        let shown = world.show(Section::Pooler).await.pooler.unwrap();
        assert_eq!(shown.state(), rpc::pool::v1::PoolerState::Draining);
        if shown.sessions == 1 && shown.instances.is_empty() {
            Ok(())
        } else {
            Err(format!("{shown:?}"))
        }
    })
    .await;
    let refused = world.try_open(world.open_request()).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::ShuttingDown);
    assert_eq!(world.value(pinned, "SELECT 1").await, "1");
    let live = world.store.poolers().list_live().await.unwrap();
    assert_eq!(live[0].state, store::poolers::PoolerState::Draining);
}

#[tokio::test]
async fn one_who_waits_for_a_connection_of_their_own_is_shown() {
    let world = Administered::new().await;
    world.set_budget(1, 0).await;
    let held = world.open().await;
    let (pooler, token, instance) = (
        world.pooler.clone(),
        world.token.clone(),
        world.server.instance_id,
    );
    let request = world.open_request();
    let mut opening = JoinSet::new();
    opening.spawn(async move {
        let opened = sessions::Sessions::open_session(&pooler, &token, instance, request).await;
        name(&opened.unwrap())
    });
    world
        .pool_becomes("it waits", |pool| (pool.cl_waiting, pool.cl_active) == (1, 1))
        .await;
    // Who opens a session is shown to wait before there is a claim.
    let waiters = eventually(DEADLINE, "the claim waits", async || {
        Some(world.waiters().await).filter(|waiters| !waiters.is_empty())
    })
    .await;
    assert_eq!(waiters[0].connection_class(), ConnectionClass::Pinned);
    assert_eq!(waiters[0].server, format!("servers/{}", world.server.id));
    sessions::Sessions::close_session(&world.pooler, &world.token, held)
        .await
        .unwrap();
    let opened = opening.join_next().await.unwrap().unwrap();
    let clients = world.clients().await;
    assert_eq!(clients.len(), 1);
    assert_eq!(clients[0].name, opened.to_string());
    assert!(world.waiters().await.is_empty());
}
