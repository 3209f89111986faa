//! What an administrator sees of poolers and has them do, through real processes: by the API, the command line and Prometheus.

use std::time::Duration;

use e2e::world::Caller;
use e2e::{Client, World, WorldOptions};
use harness::{eventually, pgmoor_binary};
use rpc::errors::v1::ErrorReason;
use rpc::pool::v1::{
    Backend, KillBackendRequest, KillSessionRequest, ListBackendsRequest, ListBudgetsRequest,
    ListClientsRequest, ListPoolersRequest, ListPoolsRequest, ListStatsRequest, PauseInstanceRequest, Pool,
    PoolerState, ReconnectInstanceRequest, ResumeInstanceRequest,
};
use rpc::query::v1::{ExecutionOutcome, GetSessionRequest};
use rpc::server::v1::GetServerRequest;
use tokio::process::Command;
use tokio::task::JoinSet;
use tonic_types::StatusExt as _;

use crate::worlds::alone;

const DEADLINE: Duration = Duration::from_secs(60);

async fn instance_of(client: &Client, server: &str) -> String {
    let request = GetServerRequest {
        name: server.to_owned(),
    };
    let server = client.servers().get_server(request).await.unwrap().into_inner();
    server.server.unwrap().instance
}

async fn pools(client: &Client) -> Vec<Pool> {
    let listed = client.pools().list_pools(ListPoolsRequest::default()).await;
    listed.unwrap().into_inner().pools
}

/// The pool of that server.
async fn pool(client: &Client, server: &str) -> Pool {
    let all = pools(client).await;
    all.into_iter()
        .find(|pool| pool.server == server)
        .unwrap_or_default()
}

async fn backends(client: &Client, server: &str) -> Vec<Backend> {
    let listed = client.pools().list_backends(ListBackendsRequest::default()).await;
    let all = listed.unwrap().into_inner().backends;
    all.into_iter()
        .filter(|backend| backend.server == server)
        .collect()
}

async fn people(world: &World) -> (Caller, Caller, String, String) {
    let (admin, member) = (world.create_administrator().await, world.create_user().await);
    let server = world.register_target(member.a()).await;
    let instance = instance_of(member.a(), &server).await;
    (admin, member, server, instance)
}

/// The sum of the samples whose line begins with `name{` and has these labels.
fn sum(scrape: &str, name: &str, labels: &[String]) -> f64 {
    let samples = scrape.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label.as_str()))
    });
    samples
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_the_api_and_of_prometheus_agree() {
    let world = alone().await;
    let (admin, member, server, instance) = people(&world).await;
    let pinned = member.a().open_session(&server).await.unwrap();
    let (busy, resting) = (
        member.b().open_auto(&server).await.unwrap(),
        member.a().open_auto(&server).await.unwrap(),
    );
    member.a().execute(&resting.name, "SELECT 1").await.unwrap();
    let running = member
        .a()
        .start(&busy.name, "SELECT pg_sleep(600)")
        .await
        .unwrap();
    eventually(DEADLINE, "the columns say so", async || {
        let pool = pool(admin.b(), &server).await;
        let columns = (
            pool.cl_active,
            pool.cl_waiting,
            pool.sv_active,
            pool.sv_pinned,
            pool.sv_idle,
        );
        if columns == (3, 0, 2, 1, 1) {
            Ok(())
        } else {
            Err(format!("{pool:?}"))
        }
    })
    .await;
    let shown = pools(admin.a()).await;
    let scrape = world.poolers()[0].scrape().await.unwrap();
    let id = instance.strip_prefix("instances/").unwrap();
    let labels = |state: &str| {
        let database = world.target().database().name();
        vec![
            format!("instance=\"{id}\""),
            format!("database=\"{database}\""),
            format!("state=\"{state}\""),
        ]
    };
    let of_database: Vec<_> = shown
        .iter()
        .filter(|pool| pool.instance == instance && pool.database == world.target().database().name())
        .collect();
    let total =
        |column: fn(&Pool) -> i32| f64::from(of_database.iter().map(|pool| column(pool)).sum::<i32>());
    let scraped = |name: &str, state: &str| sum(&scrape, name, &labels(state));
    assert_eq!(
        scraped("pgmoor_pool_clients", "active"),
        total(|pool| pool.cl_active),
        "{scrape}"
    );
    assert_eq!(
        scraped("pgmoor_pool_backends", "active"),
        total(|pool| pool.sv_active),
        "{scrape}"
    );
    assert_eq!(
        scraped("pgmoor_pool_backends", "idle"),
        total(|pool| pool.sv_idle),
        "{scrape}"
    );
    let budgets = admin
        .a()
        .pools()
        .list_budgets(ListBudgetsRequest::default())
        .await
        .unwrap();
    let budgets = budgets.into_inner().budgets;
    let budget = budgets.iter().find(|budget| budget.instance == instance).unwrap();
    let given = sum(&scrape, "pgmoor_budget_connections", &labels("")[..1]);
    assert_eq!(given, f64::from(budget.current_connections), "{scrape}");
    // Neither names nor statements of anybody.
    for private in ["pg_sleep", "servers/", "sessions/", "users/"] {
        assert!(!scrape.contains(private), "{private} in {scrape}");
    }
    let of_api = world.apis()[0].scrape().await.unwrap();
    assert!(
        of_api.contains("pgmoor_poolers{state=\"serving\"} 1.0"),
        "{of_api}"
    );

    let stats = admin
        .a()
        .pools()
        .list_stats(ListStatsRequest::default())
        .await
        .unwrap();
    let stats = stats.into_inner().stats;
    let stats = stats.iter().find(|stats| stats.server == server).unwrap();
    assert_eq!(
        (stats.total_query_count, stats.total_xact_count),
        (1, 1),
        "{stats:?}"
    );
    drop(running);
    for session in [&pinned, &busy, &resting] {
        member.a().close_session(session).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrator_pauses_replaces_and_kills() {
    let world = alone().await;
    let (admin, member, server, instance) = people(&world).await;
    let mut commands = admin.b().pools();
    let auto = member.a().open_auto(&server).await.unwrap();
    let first = member
        .a()
        .execute(&auto.name, "SELECT 1")
        .await
        .unwrap()
        .backend_pid;

    let name = instance.clone();
    commands
        .pause_instance(PauseInstanceRequest { name })
        .await
        .unwrap();
    let mut waiting = JoinSet::new();
    let (client, session) = (member.a().clone(), auto.name.clone());
    waiting.spawn(async move { client.execute(&session, "SELECT 2").await.unwrap() });
    eventually(DEADLINE, "it waits", async || {
        let pool = pool(admin.a(), &server).await;
        if pool.paused && pool.cl_waiting == 1 {
            Ok(())
        } else {
            Err(format!("{pool:?}"))
        }
    })
    .await;
    assert!(waiting.try_join_next().is_none());
    let name = instance.clone();
    commands
        .resume_instance(ResumeInstanceRequest { name })
        .await
        .unwrap();
    let run = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    assert_ne!(run.backend_pid, first);

    let name = instance.clone();
    let replaced = commands
        .reconnect_instance(ReconnectInstanceRequest { name })
        .await
        .unwrap();
    assert!(replaced.into_inner().backends >= 1);
    let after = member
        .a()
        .execute(&auto.name, "SELECT 3")
        .await
        .unwrap()
        .backend_pid;
    assert_ne!(after, run.backend_pid);

    let pinned = member.a().open_session(&server).await.unwrap();
    let held = member.a().open_session(&server).await.unwrap();
    let name = pinned.name.clone();
    commands.kill_session(KillSessionRequest { name }).await.unwrap();
    let name = format!("{instance}/backends/{}", held.backend_pid);
    commands.kill_backend(KillBackendRequest { name }).await.unwrap();
    for session in [&pinned, &held] {
        eventually(DEADLINE, "its owner learns why", async || {
            let name = session.name.clone();
            match member.b().query().get_session(GetSessionRequest { name }).await {
                Err(lost) if rpc::error::reason(&lost) == Some(ErrorReason::SessionStateLost) => {
                    let details = lost.get_details_error_info().unwrap();
                    assert_eq!(details.metadata["cause"], "killed");
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    member.a().close_session(&auto).await.unwrap();

    // Another member sees nothing of all this.
    let other = world.create_user().await;
    assert!(pools(other.a()).await.is_empty());
    assert!(backends(other.a(), &server).await.is_empty());
    let clients = other
        .a()
        .pools()
        .list_clients(ListClientsRequest::default())
        .await
        .unwrap();
    assert!(clients.into_inner().clients.is_empty());
    let name = instance.clone();
    let refused = other
        .a()
        .pools()
        .pause_instance(PauseInstanceRequest { name })
        .await
        .unwrap_err();
    assert_eq!(rpc::error::reason(&refused), Some(ErrorReason::PermissionMissing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_shows_pools_as_a_table() {
    let world = alone().await;
    let (admin, member, server, instance) = people(&world).await;
    let session = member.a().open_session(&server).await.unwrap();
    let pools = async |client: &Client, arguments: &[&str]| {
        let output = Command::new(pgmoor_binary())
            .args(["--server-url", &world.apis()[0].url(), "pools"])
            .args(arguments)
            .env_clear()
            .env("PGMOOR_TOKEN", client.token().unwrap())
            .env("HOME", "/nonexistent")
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (ok, table, errors) = pools(member.a(), &[]).await;
    assert!(ok, "{errors}");
    let heads = [
        "database",
        "user",
        "cl_active",
        "cl_waiting",
        "sv_active",
        "maxwait_us",
        "pool_mode",
    ];
    assert!(heads.iter().all(|head| table.contains(head)), "{table}");
    assert!(table.contains(world.target().database().name()), "{table}");
    let (ok, json, errors) = pools(
        admin.a(),
        &["clients", "--instance", &instance, "--format", "json"],
    )
    .await;
    assert!(ok && json.contains(&session.name), "{json}{errors}");
    for list in ["backends", "stats", "budgets", "poolers", "waiters"] {
        let (ok, shown, errors) = pools(admin.a(), &[list]).await;
        assert!(ok, "{list}: {shown}{errors}");
    }
    let (ok, _, errors) = pools(member.a(), &["pause", &instance]).await;
    assert!(!ok && errors.contains("permi"), "{errors}");
    let (ok, _, errors) = pools(admin.a(), &["pause", &instance]).await;
    assert!(ok && errors.contains("paused"), "{errors}");
    let (ok, _, errors) = pools(admin.a(), &["resume", &instance]).await;
    assert!(ok && errors.contains("resumed"), "{errors}");
    let (ok, _, errors) = pools(admin.a(), &["kill-session", &session.name]).await;
    assert!(ok && errors.contains("killed"), "{errors}");
    let (ok, _, errors) = pools(admin.a(), &["kill-session", &session.name]).await;
    assert!(!ok && errors.contains("no such session"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_does_not_answer_is_named() {
    let mut world = World::start(WorldOptions {
        apis: 1,
        poolers: 2,
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let admin = world.create_administrator().await;
    let list = async || {
        let listed = admin
            .a()
            .pools()
            .list_poolers(ListPoolersRequest::default())
            .await;
        listed.unwrap().into_inner()
    };
    let listed = eventually(DEADLINE, "both are known", async || {
        let listed = list().await;
        if listed.poolers.len() == 2 {
            Ok(listed)
        } else {
            Err(format!("{listed:?}"))
        }
    })
    .await;
    assert!(listed.unreachable_poolers.is_empty());
    let address = format!("127.0.0.1:{}", world.poolers()[1].port());
    let second = listed
        .poolers
        .iter()
        .find(|pooler| pooler.address == address)
        .unwrap();
    assert_eq!(second.state(), PoolerState::Serving);
    world.poolers_mut()[1].kill9().await;
    let listed = list().await;
    assert_eq!(listed.unreachable_poolers, [second.name.as_str()]);
    let silent = listed
        .poolers
        .iter()
        .find(|pooler| pooler.name == second.name)
        .unwrap();
    assert_eq!(silent.state(), PoolerState::Unreachable);
    let listed = admin
        .a()
        .pools()
        .list_pools(ListPoolsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().unreachable_poolers, [second.name.as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_outlives_the_pooler_that_owned_the_instance() {
    let mut world = World::start(WorldOptions {
        apis: 1,
        poolers: 2,
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let (admin, member, server, instance) = people(&world).await;
    let session = member.a().open_auto(&server).await.unwrap();
    member.a().execute(&session.name, "SELECT 1").await.unwrap();
    let name = instance.clone();
    let paused = admin
        .a()
        .pools()
        .pause_instance(PauseInstanceRequest { name })
        .await;
    assert!(paused.unwrap().into_inner().unreachable_poolers.is_empty());
    let budget = async || {
        let listed = admin
            .a()
            .pools()
            .list_budgets(ListBudgetsRequest::default())
            .await;
        let budgets = listed.unwrap().into_inner().budgets;
        budgets
            .into_iter()
            .find(|budget| budget.instance == instance)
            .unwrap()
    };
    let owner = eventually(DEADLINE, "nothing is given out", async || {
        let budget = budget().await;
        if budget.current_connections == 0 && budget.paused {
            Ok(budget.pooler)
        } else {
            Err(format!("{budget:?}"))
        }
    })
    .await;
    let listed = admin
        .a()
        .pools()
        .list_poolers(ListPoolersRequest::default())
        .await
        .unwrap();
    let listed = listed.into_inner().poolers;
    let address = &listed.iter().find(|pooler| pooler.name == owner).unwrap().address;
    let ports = world
        .poolers()
        .iter()
        .map(|pooler| format!("127.0.0.1:{}", pooler.port()));
    let place = ports.into_iter().position(|other| other == *address).unwrap();
    world.poolers_mut()[place].kill9().await;
    eventually(DEADLINE, "another owns it and knows", async || {
        let budget = budget().await;
        let other = !budget.pooler.is_empty() && budget.pooler != owner;
        if other && budget.paused {
            Ok(())
        } else {
            Err(format!("{budget:?}"))
        }
    })
    .await;
    let session = member.a().open_auto(&server).await.unwrap();
    let mut waiting = JoinSet::new();
    let (client, name) = (member.a().clone(), session.name.clone());
    waiting.spawn(async move { client.execute(&name, "SELECT 2").await.unwrap() });
    eventually(DEADLINE, "it waits", async || {
        let pool = pool(admin.a(), &server).await;
        if pool.cl_waiting == 1 && pool.sv_active + pool.sv_login == 0 {
            Ok(())
        } else {
            Err(format!("{pool:?}"))
        }
    })
    .await;
    let name = instance.clone();
    admin
        .a()
        .pools()
        .resume_instance(ResumeInstanceRequest { name })
        .await
        .unwrap();
    let run = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
}
