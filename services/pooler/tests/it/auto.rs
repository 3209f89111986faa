//! Sessions that share backends: what they keep, what is stated of it, and what becomes of it when a backend is lost.

use std::collections::HashSet;
use std::sync::Arc;

use domain::session::SessionName;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{
    BeginTransactionRequest, ExecuteRequest, ExecutionOutcome, OpenSessionRequest, PinReason, SessionMode,
    SessionState,
};
use sessions::Sessions as _;
use tokio::task::JoinSet;
use tonic_types::StatusExt as _;

use crate::cancelling::request;
use crate::support::{DEADLINE, Run, World, name, one_message, reason, split};

/// Backends of ours in the world's database.
pub(crate) async fn backends(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name LIKE 'pgmoor/%'";
    world
        .target
        .connect()
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
}

async fn kill_backends(world: &World) {
    let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name LIKE 'pgmoor/%'";
    world.target.connect().await.execute(sql, &[]).await.unwrap();
}

/// Has other sessions use every backend there can be, so that what rests changes hands.
async fn change_hands(world: &World) {
    let others = futures::future::join_all((0..4).map(|_| world.open_auto())).await;
    let runs = others
        .iter()
        .map(|other| world.run(*other, "SELECT pg_sleep(0.05)"));
    for run in futures::future::join_all(runs).await {
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{:?}", run.events);
    }
    for other in others {
        world.pooler.close_session(&world.token, other).await.unwrap();
    }
}

fn pins(run: &Run) -> Vec<PinReason> {
    run.finished().pins().collect()
}

async fn held(world: &World, session: SessionName) -> Vec<PinReason> {
    world.describe(session).await.pins().collect()
}

#[tokio::test]
async fn session_has_a_backend_only_while_it_runs_something() {
    let world = World::new().await;
    let opened = world.try_open(world.auto_request()).await.unwrap();
    assert_eq!(
        (opened.mode(), opened.backend_pid, opened.pins.len()),
        (SessionMode::Auto, 0, 0)
    );
    assert_eq!(backends(&world).await, 0);
    let session = name(&opened);
    let run = world.run(session, "SELECT pg_backend_pid()").await;
    assert_eq!((run.outcome(), pins(&run)), (ExecutionOutcome::Succeeded, vec![]));
    let described = world.describe(session).await;
    assert_eq!(
        (described.state(), described.backend_pid),
        (SessionState::Idle, 0)
    );
    assert_eq!(backends(&world).await, 1);
    // Nobody else needed it: it is the same backend.
    let pid = run.rows()[0][0].clone().unwrap();
    assert_eq!(world.value(session, "SELECT pg_backend_pid()").await, pid);
    world.pooler.close_session(&world.token, session).await.unwrap();
    // It waits for the next session of this user.
    let next = world.open_auto().await;
    assert_eq!(world.value(next, "SELECT pg_backend_pid()").await, pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_share_few_backends() {
    let world = Arc::new(World::new().await);
    world.set_budget(3, 0).await;
    world
        .target
        .connect()
        .await
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    let mut sessions = JoinSet::new();
    for number in 0..12 {
        let world = Arc::clone(&world);
        sessions.spawn(async move {
            let session = world.open_auto().await;
            let mut pids = HashSet::new();
            for _ in 0..8 {
                let run = world
                    .run(
                        session,
                        &format!("BEGIN; INSERT INTO t VALUES ({number}); COMMIT"),
                    )
                    .await;
                assert_eq!((run.outcome(), pins(&run)), (ExecutionOutcome::Succeeded, vec![]));
                pids.insert(world.value(session, "SELECT pg_backend_pid()").await);
            }
            pids
        });
    }
    let mut pids = HashSet::new();
    while let Some(session) = sessions.join_next().await {
        pids.extend(session.unwrap());
    }
    // Of one user and pool, so backends went from hand to hand and none was closed.
    assert_eq!(pids.len(), 3);
    assert_eq!(backends(&world).await, 3);
    let session = world.open_auto().await;
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "96");
}

/// What holds a session, what makes it so, how it shows that it is still there, and how it ends.
const STATES: [(PinReason, &str, &str, &str, &str); 15] = [
    (
        PinReason::Transaction,
        "BEGIN; CREATE TABLE x (a int)",
        "SELECT count(*) FROM x",
        "0",
        "ROLLBACK",
    ),
    (
        PinReason::Transaction,
        "BEGIN; CREATE TABLE x (a int); SAVEPOINT s; DROP TABLE x; ROLLBACK TO s",
        "SELECT count(*) FROM x",
        "0",
        "ROLLBACK",
    ),
    (
        PinReason::Setting,
        "SET work_mem = '7MB'",
        "SHOW work_mem",
        "7MB",
        "RESET work_mem",
    ),
    (
        PinReason::Setting,
        "SELECT set_config('work_mem', '7MB', false)",
        "SHOW work_mem",
        "7MB",
        "RESET ALL",
    ),
    (
        PinReason::Setting,
        "DO $$ BEGIN PERFORM set_config('work_mem', '7MB', false); END $$",
        "SHOW work_mem",
        "7MB",
        "RESET ALL",
    ),
    (
        PinReason::Role,
        "SET ROLE pg_monitor",
        "SELECT current_user",
        "pg_monitor",
        "RESET ROLE",
    ),
    (
        PinReason::Role,
        "SET SESSION AUTHORIZATION pg_monitor",
        "SELECT session_user",
        "pg_monitor",
        "RESET SESSION AUTHORIZATION",
    ),
    (
        PinReason::TempTable,
        "CREATE TEMP TABLE x AS SELECT 5 AS a",
        "SELECT a FROM x",
        "5",
        "DROP TABLE x",
    ),
    (
        PinReason::TempTable,
        "CREATE FUNCTION pg_temp.five() RETURNS int LANGUAGE sql AS 'SELECT 5'",
        "SELECT pg_temp.five()",
        "5",
        "DROP FUNCTION pg_temp.five()",
    ),
    (
        PinReason::AdvisoryLock,
        "SELECT pg_advisory_lock(42)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "1",
        "SELECT pg_advisory_unlock(42)",
    ),
    (
        PinReason::Listen,
        "LISTEN jobs",
        "SELECT pg_listening_channels()",
        "jobs",
        "UNLISTEN *",
    ),
    (
        PinReason::HoldCursor,
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9); COMMIT",
        "SELECT count(*) FROM pg_cursors WHERE name = 'c'",
        "1",
        "CLOSE c",
    ),
    (
        PinReason::Prepared,
        "PREPARE p AS SELECT 5",
        "EXECUTE p",
        "5",
        "DEALLOCATE p",
    ),
    (
        PinReason::Sticky,
        "SET my.tenant = 'a'",
        "SELECT current_setting('my.tenant', true)",
        "a",
        "",
    ),
    (
        PinReason::Sticky,
        "SELECT setseed(0.5)",
        "SELECT (random() * 1e6)::int = 249852 OR true",
        "t",
        "",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_holds_is_stated_and_kept_until_it_ends() {
    let world = World::new().await;
    world.set_budget(2, 0).await;
    for (pin, make, show, value, undo) in STATES {
        let session = world.open_auto().await;
        let made = world.run(session, make).await;
        assert_eq!(
            made.outcome(),
            ExecutionOutcome::Succeeded,
            "{make}: {:?}",
            made.events
        );
        assert_eq!(pins(&made), [pin], "{make}");
        assert_eq!(held(&world, session).await, [pin], "{make}");
        change_hands(&world).await;
        let shown = world.run(session, show).await;
        assert_eq!(
            shown.rows()[0][0].as_deref(),
            Some(value),
            "{make}: {:?}",
            shown.events
        );
        assert_eq!(pins(&shown), [pin], "{make}");
        if !undo.is_empty() {
            let undone = world.run(session, undo).await;
            assert_eq!(
                undone.outcome(),
                ExecutionOutcome::Succeeded,
                "{undo}: {:?}",
                undone.events
            );
            assert_eq!(pins(&undone), [], "{undo}");
        }
        world.pooler.close_session(&world.token, session).await.unwrap();
    }
    assert!(backends(&world).await <= 2);
}

#[tokio::test]
async fn failed_transaction_is_kept_until_it_is_rolled_back() {
    let world = World::new().await;
    world.set_budget(2, 0).await;
    let session = world.open_auto().await;
    let begun = world
        .pooler
        .begin_transaction(&world.token, session, BeginTransactionRequest::default())
        .await
        .unwrap();
    assert_eq!(begun.pins().collect::<Vec<_>>(), [PinReason::Transaction]);
    let failed = world.run(session, "SELECT 1/0").await;
    assert_eq!(pins(&failed), [PinReason::Transaction]);
    change_hands(&world).await;
    assert_eq!(world.run(session, "SELECT 1").await.sqlstates(), ["25P02"]);
    let ended = world
        .pooler
        .rollback_transaction(&world.token, session)
        .await
        .unwrap();
    assert_eq!(ended.pins.len(), 0);
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn text_of_one_message_is_read_as_a_whole() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let run = world
        .execute(session, one_message("SELECT 1; SET work_mem = '7MB'; SELECT 2"))
        .await;
    assert_eq!(pins(&run), [PinReason::Setting]);
    let run = world
        .execute(session, one_message("RESET work_mem; SELECT 2"))
        .await;
    assert_eq!(pins(&run), []);
}

/// What the text of a statement does not show.
async fn hidden(world: &World, make: &str, show: &str, value: &str, pin: PinReason) {
    let setup = format!(
        "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN {make} RETURN NEW; END $$; \
         CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();"
    );
    world.target.connect().await.batch_execute(&setup).await.unwrap();
    world.set_budget(2, 0).await;
    let session = world.open_auto().await;
    let run = world.run(session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(pins(&run), [], "nobody looked yet");
    // Others want the backend, so somebody looks.
    change_hands(world).await;
    assert_eq!(held(world, session).await, [pin]);
    assert_eq!(world.value(session, show).await, value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_made_in_a_trigger_is_found_when_others_want_the_backend() {
    let world = World::new().await;
    hidden(
        &world,
        "PERFORM set_config('work_mem', '7MB', false);",
        "SHOW work_mem",
        "7MB",
        PinReason::Setting,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_taken_in_a_trigger_is_found_when_others_want_the_backend() {
    let world = World::new().await;
    hidden(
        &world,
        "PERFORM pg_advisory_lock(42);",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "1",
        PinReason::AdvisoryLock,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn option_that_a_policy_reads_never_reaches_another_session() {
    let world = World::new().await;
    let setup = "CREATE TABLE t (tenant text); INSERT INTO t VALUES ('a'), ('b'); ALTER TABLE t ENABLE ROW LEVEL SECURITY; \
                 CREATE POLICY p ON t USING (tenant = current_setting('my.tenant', true)); GRANT SELECT ON t TO pg_monitor;";
    world.target.connect().await.batch_execute(setup).await.unwrap();
    world.set_budget(3, 0).await;
    let read = "SELECT coalesce(string_agg(tenant, ','), '') || coalesce(current_setting('my.tenant', true), '-') FROM t";
    let (first, second, third) = (
        world.open_auto().await,
        world.open_auto().await,
        world.open_auto().await,
    );
    for (session, tenant) in [(first, "a"), (second, "b")] {
        world
            .run(
                session,
                &format!("SET ROLE pg_monitor; SET my.tenant = '{tenant}'"),
            )
            .await;
    }
    world.run(third, "SET ROLE pg_monitor").await;
    for _ in 0..2 {
        assert_eq!(world.value(first, read).await, "aa");
        assert_eq!(world.value(second, read).await, "bb");
        assert_eq!(world.value(third, read).await, "-");
    }
    world.run(third, "RESET ROLE").await;
    // A local one leaves no state, but '' where NULL was: such a backend is not passed on.
    let run = world.run(third, "BEGIN; SET LOCAL my.tenant = 'c'; COMMIT").await;
    assert_eq!(pins(&run), []);
    let fourth = world.open_auto().await;
    assert_eq!(
        world
            .value(fourth, "SELECT coalesce(current_setting('my.tenant', true), '-')")
            .await,
        "-"
    );
}

#[tokio::test]
async fn lost_backend_of_an_unpinned_session_is_told_once_and_nothing_is_run() {
    let world = World::new().await;
    world
        .target
        .connect()
        .await
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    let session = world.open_auto().await;
    world.run(session, "INSERT INTO t VALUES (1)").await;
    kill_backends(&world).await;
    let refused = world
        .try_execute(session, request("INSERT INTO t VALUES (2)"))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&refused), ErrorReason::SessionRecovered);
    assert_eq!(
        refused.get_details_error_info().unwrap().metadata["incarnation"],
        "2"
    );
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "1");
    // Who follows the incarnation is told until they know it.
    let known = |incarnation| ExecuteRequest {
        incarnation,
        ..request("SELECT 1")
    };
    for _ in 0..2 {
        let refused = world.try_execute(session, known(1)).await.err().unwrap();
        assert_eq!(reason(&refused), ErrorReason::SessionRecovered);
    }
    let run = Run::read(world.try_execute(session, known(2)).await.unwrap()).await;
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
}

#[tokio::test]
async fn lost_backend_of_a_pinned_session_ends_it_and_says_what_was_lost() {
    let world = World::new().await;
    let session = world.open_auto().await;
    world
        .run(
            session,
            "CREATE TEMP TABLE x (a int); SET work_mem = '7MB'; BEGIN",
        )
        .await;
    kill_backends(&world).await;
    let gone = eventually(DEADLINE, "the session is gone", async || {
        world
            .try_execute(session, request("SELECT 1"))
            .await
            .err()
            .ok_or("it goes on")
    })
    .await;
    assert_eq!(reason(&gone), ErrorReason::SessionStateLost);
    let metadata = gone.get_details_error_info().unwrap().metadata.clone();
    assert_eq!(metadata["cause"], "backend_terminated");
    assert_eq!(metadata["pins"], "TRANSACTION");
}

#[tokio::test]
async fn backend_lost_in_the_middle_of_a_statement_is_its_outcome() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let (_, stream) = crate::cancelling::start(&world, session, request("SELECT pg_sleep(60)")).await;
    kill_backends(&world).await;
    let run = Run::read(stream).await;
    assert_eq!((run.outcome(), pins(&run)), (ExecutionOutcome::Lost, vec![]));
    assert_eq!(world.value(session, "SELECT 1").await, "1");
    assert_eq!(world.describe(session).await.incarnation, 2);
}

fn patient(world: &World, seconds: i64) -> OpenSessionRequest {
    OpenSessionRequest {
        queue_timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..world.auto_request()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_execution_is_seen_and_can_be_cancelled_closed_and_given_up() {
    let world = Arc::new(World::new().await);
    world.set_budget(1, 0).await;
    let holder = world.open_auto().await;
    world.run(holder, "BEGIN").await;
    let waiter = name(&world.try_open(patient(&world, 60)).await.unwrap());
    let wait = |session| {
        let world = Arc::clone(&world);
        async move {
            Ok::<_, tonic::Status>(Run::read(world.try_execute(session, request("SELECT 1")).await?).await)
        }
    };
    let mut waits = JoinSet::new();
    waits.spawn(wait(waiter));
    let waiting = eventually(DEADLINE, "the session waits", async || {
        let session = world.describe(waiter).await;
        (session.state() == SessionState::Waiting)
            .then_some(session)
            .ok_or("not yet")
    })
    .await;
    assert_eq!((waiting.queue_position, waiting.backend_pid), (0, 0));
    world
        .pooler
        .cancel_execution(&world.token, waiting.execution.parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        waits.join_next().await.unwrap().unwrap().unwrap().outcome(),
        ExecutionOutcome::Cancelled
    );
    let execution = world
        .pooler
        .get_execution(&world.token, waiting.execution.parse().unwrap())
        .await
        .unwrap();
    assert_eq!(execution.outcome(), ExecutionOutcome::Cancelled);

    waits.spawn(wait(waiter));
    eventually(DEADLINE, "the session waits again", async || {
        (world.describe(waiter).await.state() == SessionState::Waiting)
            .then_some(())
            .ok_or("not yet")
    })
    .await;
    world.pooler.close_session(&world.token, waiter).await.unwrap();
    let closed = waits.join_next().await.unwrap().unwrap().err().unwrap();
    assert_eq!(reason(&closed), ErrorReason::SessionStateLost);

    let hurried = name(&world.try_open(patient(&world, 1)).await.unwrap());
    let refused = world
        .try_execute(hurried, request("SELECT 1"))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    assert_eq!(world.describe(hurried).await.state(), SessionState::Idle);
    world.run(holder, "COMMIT").await;
    assert_eq!(world.value(hurried, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_that_was_cancelled_while_it_waited_did_not_begin() {
    let world = Arc::new(World::new().await);
    world.set_budget(1, 0).await;
    let (holder, waiter) = (world.open_auto().await, world.open_auto().await);
    world.run(holder, "BEGIN").await;
    let mut waits = JoinSet::new();
    let there = Arc::clone(&world);
    waits.spawn(async move {
        let request = BeginTransactionRequest::default();
        there
            .pooler
            .begin_transaction(&there.token, waiter, request)
            .await
    });
    let waiting = eventually(DEADLINE, "the session waits", async || {
        let session = world.describe(waiter).await;
        (session.state() == SessionState::Waiting)
            .then_some(session)
            .ok_or("not yet")
    })
    .await;
    let execution = waiting.execution.parse().unwrap();
    world
        .pooler
        .cancel_execution(&world.token, execution)
        .await
        .unwrap();
    let refused = waits.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::ExecutionCancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_pooler_leaves_no_backend_and_gives_the_instance_back() {
    let world = World::new().await;
    let sessions = futures::future::join_all((0..4).map(|_| world.open_auto())).await;
    let runs = sessions
        .iter()
        .map(|session| world.run(*session, "SELECT pg_sleep(0.1)"));
    futures::future::join_all(runs).await;
    world.run(sessions[0], "BEGIN").await;
    let (_, _stream) = crate::cancelling::start(&world, sessions[1], request("SELECT pg_sleep(60)")).await;
    world.pooler.drain(tokio::time::Instant::now()).await;
    assert_eq!(backends(&world).await, 0);
    let owners = world.store.instance_owners();
    let owner = owners.owner_of(world.server.instance_id).await.unwrap();
    assert!(owner.is_none(), "the instance was not given back: {owner:?}");
}

#[tokio::test]
async fn unused_session_expires_and_leaves_its_backend_to_others() {
    let world = World::new().await;
    let request = OpenSessionRequest {
        idle_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 300_000_000,
        }),
        ..world.auto_request()
    };
    let session = name(&world.try_open(request).await.unwrap());
    let pid = world.value(session, "SELECT pg_backend_pid()").await;
    let gone = eventually(DEADLINE, "the session is gone", async || {
        world
            .pooler
            .get_session(&world.token, session)
            .await
            .err()
            .ok_or("it is there")
    })
    .await;
    assert_eq!(
        gone.get_details_error_info().unwrap().metadata["cause"],
        "idle_timeout"
    );
    let next = world.open_auto().await;
    assert_eq!(world.value(next, "SELECT pg_backend_pid()").await, pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pinned_session_gets_a_backend_that_rests_with_another() {
    let world = World::new().await;
    world.set_budget(1, 0).await;
    let session = world.open_auto().await;
    let pid = world.value(session, "SELECT pg_backend_pid()").await;
    let pinned = world.open().await;
    assert_ne!(world.value(pinned, "SELECT pg_backend_pid()").await, pid);
    assert_eq!(backends(&world).await, 1);
    world.pooler.close_session(&world.token, pinned).await.unwrap();
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn sessions_with_other_start_up_settings_never_share_a_backend() {
    let world = World::new().await;
    let with = |schema: &str| {
        let mut request = world.auto_request();
        request
            .parameters
            .insert("search_path".to_owned(), schema.to_owned());
        request
    };
    let (one, two) = (with("one"), with("two"));
    for (request, path) in [(one.clone(), "one"), (two, "two"), (one, "one")] {
        let session = name(&world.try_open(request).await.unwrap());
        assert_eq!(world.value(session, "SHOW search_path").await, path);
        world.pooler.close_session(&world.token, session).await.unwrap();
    }
}

#[tokio::test]
async fn session_whose_server_is_gone_says_so_when_it_needs_a_connection() {
    let world = World::new().await;
    let session = world.open_auto().await;
    world.store.servers().delete(world.server.id, None).await.unwrap();
    let refused = world
        .try_execute(
            session,
            ExecuteRequest {
                script: Some(split("SELECT 1")),
                ..Default::default()
            },
        )
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&refused), ErrorReason::SessionStateLost);
    assert_eq!(
        refused.get_details_error_info().unwrap().metadata["cause"],
        "server_changed"
    );
}
