//! Two people on backends that their sessions share, against connections of their own.

use domain::endpoint::{Endpoint, SslMode};
use domain::session::SessionName;
use harness::Cluster;
use proptest::prelude::*;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{ExecutionOutcome, OpenSessionRequest, SessionMode};
use sessions::{Sessions as _, UserToken};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cancelling::request;
use crate::support::{Run, World, name, reason, register};

const SETUP: &str = "CREATE TABLE kept (a int); CREATE TABLE locking (a int); CREATE TABLE setting (a int); \
    CREATE FUNCTION lock() RETURNS trigger LANGUAGE plpgsql AS \
      $$ BEGIN PERFORM pg_try_advisory_lock(1); RETURN NEW; END $$; \
    CREATE FUNCTION set() RETURNS trigger LANGUAGE plpgsql AS \
      $$ BEGIN PERFORM set_config('work_mem', '5MB', false); RETURN NEW; END $$; \
    CREATE TRIGGER lock BEFORE INSERT ON locking FOR EACH ROW EXECUTE FUNCTION lock(); \
    CREATE TRIGGER set BEFORE INSERT ON setting FOR EACH ROW EXECUTE FUNCTION set(); \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO pg_monitor;";

/// Statements that leave something, end it, or show whether it is there.
const STATEMENTS: &[&str] = &[
    "SELECT count(*) FROM kept",
    "INSERT INTO kept VALUES (1)",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "SELECT 1/0",
    "SHOW work_mem",
    "SET work_mem = '7MB'",
    "SET LOCAL work_mem = '8MB'",
    "SELECT set_config('work_mem', '9MB', false)",
    "INSERT INTO setting VALUES (1)",
    "RESET work_mem",
    "SELECT coalesce(current_setting('my.tenant', true), '')",
    "SET my.tenant = 'a'",
    "SET LOCAL my.tenant = 'b'",
    "SELECT current_user, session_user",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION pg_monitor",
    "RESET ROLE",
    "RESET SESSION AUTHORIZATION",
    "SELECT count(*) FROM t",
    "CREATE TEMP TABLE t (a int)",
    "INSERT INTO t VALUES (1)",
    "DROP TABLE t",
    "SELECT pg_try_advisory_lock(1)",
    "INSERT INTO locking VALUES (1)",
    "SELECT pg_advisory_unlock(1)",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "LISTEN a",
    "UNLISTEN *",
    "SELECT count(*) FROM pg_listening_channels()",
    "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3)",
    "FETCH 1 FROM c",
    "CLOSE c",
    "PREPARE p AS SELECT 5",
    "EXECUTE p",
    "DEALLOCATE p",
    "DISCARD ALL",
    "SELECT setseed(0.5)",
];
/// Shown only where `setseed` made it predictable.
const RANDOM: &str = "SELECT random()";

/// What a statement came to.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Rows(Vec<Vec<Option<String>>>),
    Error(String),
}

async fn dedicated(client: &Client, sql: &str) -> Came {
    match client.simple_query(sql).await {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                }
                _ => None,
            });
            Came::Rows(rows.collect())
        }
        Err(error) => Came::Error(error.code().unwrap().code().to_owned()),
    }
}

struct Person {
    token: UserToken,
    sessions: [SessionName; 2],
}

/// Runs a statement; nothing where no backend was free for it.
async fn shared(world: &World, person: &Person, session: SessionName, sql: &str) -> Option<Came> {
    let stream = match world.pooler.execute(&person.token, session, request(sql)).await {
        Ok(stream) => stream,
        Err(status) => {
            assert_eq!(reason(&status), ErrorReason::BudgetExhausted, "{sql}: {status:?}");
            return None;
        }
    };
    let run = Run::read(stream).await;
    Some(match run.outcome() {
        ExecutionOutcome::Succeeded => Came::Rows(run.rows()),
        ExecutionOutcome::Failed => Came::Error(run.sqlstates()[0].to_owned()),
        other => panic!("{sql}: {other:?}"),
    })
}

async fn person(world: &World, token: UserToken, server: String) -> Person {
    let open = || async {
        let request = OpenSessionRequest {
            server: server.clone(),
            mode: SessionMode::Auto.into(),
            queue_timeout: Some(prost_types::Duration {
                seconds: 0,
                nanos: 50_000_000,
            }),
            ..Default::default()
        };
        name(
            &world
                .pooler
                .open_session(&token, world.server.instance_id, request)
                .await
                .unwrap(),
        )
    };
    let sessions = [open().await, open().await];
    Person { token, sessions }
}

async fn compare(steps: Vec<(usize, usize)>) {
    let world = World::new().await;
    let cluster = Cluster::shared().await;
    let twin = cluster.create_database().await;
    world.target.connect().await.batch_execute(SETUP).await.unwrap();
    twin.connect().await.batch_execute(SETUP).await.unwrap();
    world.set_budget(2, 0).await;
    let (other, token) = world.other_person().await;
    let theirs = register(
        &world.store,
        &world.opening_key,
        other,
        "theirs",
        world.target.name(),
        &cluster.endpoint().superuser(),
        Endpoint::new("127.0.0.1", cluster.port().into()).unwrap(),
        SslMode::Disable,
    )
    .await;
    let people = [
        person(
            &world,
            world.token.clone(),
            format!("servers/{}", world.server.id),
        )
        .await,
        person(&world, token, format!("servers/{}", theirs.id)).await,
    ];
    let mut twins = Vec::new();
    for _ in 0..4 {
        twins.push(twin.connect().await);
    }
    let (mut seeded, mut history) = ([false; 4], Vec::new());
    for (who, what) in steps {
        let statement = STATEMENTS.get(what).copied();
        if statement.is_none() && !seeded[who] {
            continue;
        }
        let sql = statement.unwrap_or(RANDOM);
        let person = &people[who / 2];
        let Some(came) = shared(&world, person, person.sessions[who % 2], sql).await else {
            history.push(format!("{who}: {sql} had to wait"));
            continue;
        };
        let expected = dedicated(&twins[who], sql).await;
        seeded[who] |= sql.contains("setseed") && matches!(expected, Came::Rows(_));
        history.push(format!("{who}: {sql}"));
        assert_eq!(came, expected, "{history:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 12, ..ProptestConfig::default() })]

    #[test]
    fn nothing_leaks_and_nothing_is_lost(
        steps in prop::collection::vec((0..4_usize, 0..STATEMENTS.len() + 1), 20..100)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(compare(steps));
    }
}

/// Few, unless time does not matter.
#[allow(clippy::disallowed_methods, reason = "a test's own switch")]
fn cases() -> u32 {
    if std::env::var_os("PGMOOR_LONG_TESTS").is_some() {
        200
    } else {
        6
    }
}
