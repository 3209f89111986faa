//! Read-only sessions of a role that may write everything: what is refused, what is not, and that ordinary work goes on.

use domain::session::SessionName;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    BeginTransactionRequest, CopyInRequest, CopyInStart, ExecuteRequest, ExecutionOutcome, FetchMoreRequest,
    IsolationLevel, OnError, OnLimit, OpenSessionRequest, Parameter, PinReason, Script, SessionAccess,
    SessionMode, TransactionStatus, copy_in_request, parameter,
};
use sessions::Sessions as _;

use crate::support::{DEADLINE, Run, World, name, one_message, reason, split, start_pooler, verifier};

/// A world with a table of one row, which nobody may change in a read-only session.
struct Guarded {
    world: World,
}

impl Guarded {
    async fn new() -> Self {
        let world = World::new().await;
        let session = world.open().await;
        let made = world
            .run(
                session,
                "CREATE TABLE public.t (n int); INSERT INTO public.t VALUES (1); CREATE SEQUENCE public.s; \
                 CREATE FUNCTION public.w() RETURNS int LANGUAGE sql AS 'INSERT INTO public.t VALUES (2) RETURNING n'; \
                 CREATE FUNCTION public.wd() RETURNS int LANGUAGE sql SECURITY DEFINER \
                     AS 'INSERT INTO public.t VALUES (2) RETURNING n'; \
                 CREATE PROCEDURE public.p() LANGUAGE plpgsql \
                     AS $$ BEGIN COMMIT; INSERT INTO public.t VALUES (3); END $$; \
                 CREATE EXTENSION dblink; CREATE ROLE pgmoor_read_only_writer; \
                 GRANT ALL ON public.t TO pgmoor_read_only_writer",
            )
            .await;
        // A role is the cluster's: another test may have made it.
        let known = |state: &&str| *state == "42710";
        if made.outcome() != ExecutionOutcome::Succeeded {
            assert!(made.sqlstates().iter().all(known), "{:?}", made.events);
            let granted = world
                .run(session, "GRANT ALL ON public.t TO pgmoor_read_only_writer")
                .await;
            assert_eq!(granted.outcome(), ExecutionOutcome::Succeeded);
        }
        Self { world }
    }

    async fn open(&self, mode: SessionMode) -> SessionName {
        let opened = self.world.try_open(OpenSessionRequest {
            mode: mode.into(),
            access: SessionAccess::ReadOnly.into(),
            ..self.world.open_request()
        });
        let session = opened.await.unwrap();
        assert_eq!(session.access(), SessionAccess::ReadOnly);
        name(&session)
    }

    async fn both_modes(&self) -> [SessionName; 2] {
        [
            self.open(SessionMode::Pinned).await,
            self.open(SessionMode::Auto).await,
        ]
    }

    /// What is in the table, and which relations there are besides, as somebody else sees it.
    async fn state(&self) -> (Vec<i32>, i64) {
        let watcher = self.world.target.connect().await;
        let rows = watcher
            .query("SELECT n FROM public.t ORDER BY n", &[])
            .await
            .unwrap();
        let relations = watcher
            .query_one(
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
                &[],
            )
            .await
            .unwrap();
        (rows.iter().map(|row| row.get(0)).collect(), relations.get(0))
    }

    async fn run_on(&self, session: SessionName, sql: &str) -> Run {
        let script = Script {
            on_error: OnError::Continue.into(),
            ..split(sql)
        };
        self.world.execute(session, script).await
    }
}

/// Scripts that would write, and the SQLSTATEs of what is refused in them.
const ESCAPES: &[(&str, &[&str])] = &[
    ("INSERT INTO t VALUES (2)", &["25006"]),
    ("COMMIT; INSERT INTO t VALUES (2)", &["25006"]),
    (
        "ROLLBACK; BEGIN READ WRITE; INSERT INTO t VALUES (2); COMMIT",
        &["25001", "25006"],
    ),
    ("END; ABORT; CREATE TABLE x ()", &["25006"]),
    ("COMMIT AND CHAIN; INSERT INTO t VALUES (2)", &["25006"]),
    (
        "BEGIN; COMMIT AND CHAIN; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (2); COMMIT",
        &["25001", "25P02"],
    ),
    (
        "BEGIN; SELECT 1/0; ROLLBACK AND CHAIN; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (2); COMMIT",
        &["22012", "25001", "25P02"],
    ),
    (
        "BEGIN; SAVEPOINT a; SET TRANSACTION READ WRITE; ROLLBACK TO a; INSERT INTO t VALUES (2); COMMIT",
        &["25001", "25006"],
    ),
    (
        "SET transaction_read_only = off; INSERT INTO t VALUES (2)",
        &["25001", "25006"],
    ),
    (
        "SET default_transaction_read_only = off; INSERT INTO t VALUES (2)",
        &["25006"],
    ),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO t VALUES (2)",
        &["25006"],
    ),
    (
        "SELECT set_config('transaction_read_only', 'off', false); INSERT INTO t VALUES (2)",
        &["25001", "25006"],
    ),
    (
        "SELECT set_config('transaction_read_only', 'off', true) FROM w()",
        &["25006"],
    ),
    ("DO $$ BEGIN INSERT INTO t VALUES (2); END $$", &["25006"]),
    ("DO $$ BEGIN COMMIT; INSERT INTO t VALUES (2); END $$", &["2D000"]),
    (
        "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO t VALUES (2); END $$",
        &["25001"],
    ),
    (
        "DO $$ BEGIN EXECUTE 'SET transaction_read_only = off'; EXCEPTION WHEN OTHERS THEN \
      PERFORM set_config('transaction_read_only', 'off', true); INSERT INTO t VALUES (2); END $$",
        &["25001"],
    ),
    ("CALL p()", &["2D000"]),
    ("SELECT w()", &["25006"]),
    ("SELECT wd()", &["25006"]),
    (
        "WITH x AS (INSERT INTO t VALUES (2) RETURNING n) SELECT * FROM x",
        &["25006"],
    ),
    ("EXPLAIN ANALYZE INSERT INTO t VALUES (2)", &["25006"]),
    ("PREPARE q AS INSERT INTO t VALUES (2); EXECUTE q", &["25006"]),
    ("SELECT * INTO x FROM t", &["25006"]),
    ("CREATE TEMP TABLE x (n int)", &["25006"]),
    ("SELECT n FROM t FOR UPDATE", &["25006"]),
    ("TRUNCATE t", &["25006"]),
    ("DROP TABLE t", &["25006"]),
    ("COPY t FROM STDIN", &["25006"]),
    ("COPY t FROM PROGRAM 'echo 2'", &["25006"]),
    ("SELECT nextval('s')", &["25006"]),
    ("SELECT setval('s', 7)", &["25006"]),
    ("VACUUM t", &["25001"]),
    ("CREATE DATABASE x", &["25006"]),
    ("ALTER SYSTEM SET work_mem = '5MB'", &["25001"]),
    ("COMMIT PREPARED 'x'", &["25001"]),
    (
        "PREPARE TRANSACTION 'x'; INSERT INTO t VALUES (2)",
        &["55000", "25006"],
    ),
    (
        "SET SESSION AUTHORIZATION pgmoor_read_only_writer; INSERT INTO public.t VALUES (2); RESET SESSION AUTHORIZATION; \
      SET ROLE pgmoor_read_only_writer; INSERT INTO public.t VALUES (2); RESET ROLE; INSERT INTO t VALUES (2)",
        &["25006", "25006", "25006"],
    ),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT w()", &["25006"]),
];

#[tokio::test]
async fn nothing_a_read_only_session_is_given_changes_a_table() {
    let guarded = Guarded::new().await;
    let before = guarded.state().await;
    for mode in [SessionMode::Pinned, SessionMode::Auto] {
        for (sql, states) in ESCAPES {
            let session = guarded.open(mode).await;
            let run = guarded.run_on(session, sql).await;
            assert_eq!(run.sqlstates(), *states, "{sql}");
            assert_eq!(run.outcome(), ExecutionOutcome::Failed, "{sql}");
            assert_eq!(guarded.state().await, before, "{sql}");
            // Whatever it was, the session goes on, and still only reads.
            let state = guarded.world.describe(session).await.transaction_status();
            assert_eq!(state, TransactionStatus::Idle, "{sql}");
            assert_eq!(
                guarded
                    .world
                    .value(session, "SELECT count(*) FROM public.t")
                    .await,
                "1",
                "{sql}"
            );
            let again = guarded
                .world
                .run(session, "INSERT INTO public.t VALUES (4)")
                .await;
            assert_eq!(again.sqlstates(), ["25006"], "{sql}");
            guarded
                .world
                .pooler
                .close_session(&guarded.world.token, session)
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn text_that_is_cut_otherwise_than_the_server_reads_it_is_refused_by_the_server() {
    let guarded = Guarded::new().await;
    let before = guarded.state().await;
    let commit_and_write = "COMMIT; INSERT INTO public.t VALUES (2); SELECT";
    for prefix in ["", "SET standard_conforming_strings = off; "] {
        for sql in [
            format!("SELECT E'\\'; {commit_and_write} '"),
            format!("SELECT '\\'; {commit_and_write} '"),
            format!("SELECT '\\'; {commit_and_write} \\'"),
            format!("SELECT $a$ $b$; {commit_and_write} $b$ $a$; {commit_and_write} 1"),
            format!("SELECT $$; $a$; {commit_and_write} $a$; $$"),
            format!("SELECT U&'\\0027'; {commit_and_write} U&'\\0027'"),
            format!("SELECT U&'!' UESCAPE '!'; {commit_and_write} '"),
            format!("SELECT 1 /* /* */; {commit_and_write} 2 */"),
            format!("SELECT 1 /* */ */; {commit_and_write} 2"),
            format!("SELECT 1 -- '\n; {commit_and_write} 2 -- '"),
            format!("SELECT \"a'b\"; {commit_and_write} \"'\""),
            format!("SELECT 'a'\n'b;'; {commit_and_write} 1"),
            format!("SELECT 1 AS $a$; {commit_and_write} 2 AS $a$"),
            format!(
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; {commit_and_write} 1; END; {commit_and_write} 2"
            ),
        ] {
            for mode in [SessionMode::Pinned, SessionMode::Auto] {
                for script in [split, one_message] {
                    let session = guarded.open(mode).await;
                    let sql = format!("{prefix}{sql}");
                    let run = guarded.world.execute(
                        session,
                        Script {
                            on_error: OnError::Continue.into(),
                            ..script(&sql)
                        },
                    );
                    let run = run.await;
                    let wrote = run.tags().iter().any(|tag| tag.starts_with("INSERT"));
                    assert!(!wrote, "{sql}: {:?}", run.events);
                    assert_eq!(guarded.state().await, before, "{sql}");
                    guarded
                        .world
                        .pooler
                        .close_session(&guarded.world.token, session)
                        .await
                        .unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn several_statements_never_reach_the_server_as_one() {
    let guarded = Guarded::new().await;
    let before = guarded.state().await;
    let several = "COMMIT; INSERT INTO t VALUES (2)";
    for session in guarded.both_modes().await {
        // With a parameter a script is one statement, and never cut.
        let script = Script {
            parameters: vec![Parameter {
                kind: Some(parameter::Kind::Text("1".to_owned())),
                type_oid: 0,
            }],
            ..split(several)
        };
        let run = guarded.world.execute(session, script).await;
        assert_eq!(run.sqlstates(), ["42601"]);
        // As one message it is cut nonetheless, and ends at the first error.
        let run = guarded
            .world
            .execute(
                session,
                one_message("SELECT 1; INSERT INTO t VALUES (2); SELECT 2"),
            )
            .await;
        assert_eq!((run.sqlstates(), run.tags()), (vec!["25006"], vec!["SELECT 1"]));
        assert_eq!(guarded.state().await, before);
    }
}

#[tokio::test]
async fn what_a_read_only_transaction_allows_only_the_role_can_refuse() {
    // Each of these is a reason for which access is best effort.
    let guarded = Guarded::new().await;
    let session = guarded.open(SessionMode::Pinned).await;
    let allowed = async |sql: &str| {
        let run = guarded.world.run(session, sql).await;
        assert_eq!(
            run.outcome(),
            ExecutionOutcome::Succeeded,
            "{sql}: {:?}",
            run.events
        );
    };
    allowed("SELECT pg_advisory_lock(1), pg_advisory_unlock(1)").await;
    allowed("NOTIFY c, 'x'").await;
    allowed("SELECT pg_notify('c', 'x')").await;
    allowed("LISTEN c; UNLISTEN c").await;
    allowed("LOCK TABLE t").await;
    allowed("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'").await;
    let version = guarded.world.value(session, "SHOW server_version_num").await;
    let objects = guarded.world.run(session, "SELECT lo_create(0)").await;
    // PostgreSQL refuses them since 16.
    let refused = version.parse::<u32>().unwrap() >= 160_000;
    assert_eq!(objects.sqlstates().is_empty(), !refused);
    assert_eq!(guarded.state().await.0, [1]);
    // A connection of the server's own is another session.
    let port = guarded.world.value(session, "SHOW port").await;
    let sockets = guarded
        .world
        .value(
            session,
            "SELECT split_part(setting, ',', 1) FROM pg_settings \
        WHERE name = 'unix_socket_directories'",
        )
        .await;
    let connection = format!(
        "port={port} host={sockets} dbname={}",
        guarded.world.target.name()
    );
    let run = guarded
        .world
        .run(
            session,
            &format!("SELECT dblink_exec('{connection}', 'INSERT INTO public.t VALUES (9)')"),
        )
        .await;
    if run.outcome() == ExecutionOutcome::Succeeded {
        assert_eq!(guarded.state().await.0, [1, 9]);
    } else {
        // Where the server does not let itself in without a password.
        assert_eq!(run.sqlstates(), ["08001"], "{:?}", run.events);
    }
}

#[tokio::test]
async fn blocks_of_the_users_own_work_as_in_psql() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    for (session, mode) in guarded
        .both_modes()
        .await
        .into_iter()
        .zip([vec![PinReason::Mode], vec![]])
    {
        let run = world.run(session, "BEGIN; SELECT n FROM t").await;
        assert_eq!(run.tags(), ["BEGIN", "SELECT 1"], "{:?}", run.events);
        assert!(
            !run.kinds().any(|kind| matches!(kind, Kind::Notice(_))),
            "{:?}",
            run.events
        );
        let finished = run.finished();
        assert_eq!(finished.transaction_status(), TransactionStatus::InTransaction);
        assert!(finished.pins().any(|pin| pin == PinReason::Transaction));
        // It is kept between executions, and what is declared in it too.
        world
            .run(session, "DECLARE c CURSOR FOR SELECT n FROM t; SAVEPOINT a")
            .await;
        assert_eq!(world.value(session, "FETCH c").await, "1");
        let run = world.run(session, "SELECT 1/0").await;
        assert_eq!(run.finished().transaction_status(), TransactionStatus::Failed);
        assert_eq!(world.run(session, "SELECT 1").await.sqlstates(), ["25P02"]);
        let run = world.run(session, "ROLLBACK TO a; COMMIT").await;
        assert_eq!(run.tags(), ["ROLLBACK", "COMMIT"]);
        let finished = run.finished();
        assert_eq!(finished.transaction_status(), TransactionStatus::Idle);
        assert_eq!(finished.pins().collect::<Vec<_>>(), mode);
        // A COMMIT that has nothing to commit is not announced.
        assert!(!run.kinds().any(|kind| matches!(kind, Kind::Committing(_))));
    }
}

#[tokio::test]
async fn isolation_is_the_one_the_user_asks_for() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    const SHOWN: &str =
        "SELECT current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only')";
    for session in guarded.both_modes().await {
        for (begin, isolation) in [
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", "serializable on"),
            (
                "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                "repeatable read on",
            ),
            (
                "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "read committed on",
            ),
        ] {
            let run = world.run(session, &format!("{begin}; {SHOWN}; COMMIT")).await;
            assert_eq!(
                run.rows(),
                [[Some(isolation.to_owned())]],
                "{begin}: {:?}",
                run.events
            );
        }
        world
            .run(session, "SET default_transaction_isolation = 'repeatable read'")
            .await;
        assert_eq!(world.value(session, SHOWN).await, "repeatable read on");
        let begun = world.pooler.begin_transaction(
            &world.token,
            session,
            BeginTransactionRequest {
                isolation_level: IsolationLevel::Serializable.into(),
                deferrable: true,
                ..Default::default()
            },
        );
        assert_eq!(
            begun.await.unwrap().transaction_status(),
            TransactionStatus::InTransaction
        );
        assert_eq!(world.value(session, SHOWN).await, "serializable on");
        assert_eq!(world.value(session, "SHOW transaction_deferrable").await, "on");
        assert_eq!(
            world.run(session, "INSERT INTO t VALUES (2)").await.sqlstates(),
            ["25006"]
        );
        let rolled = world
            .pooler
            .rollback_transaction(&world.token, session)
            .await
            .unwrap();
        assert_eq!(rolled.transaction_status(), TransactionStatus::Idle);
        world
            .pooler
            .begin_transaction(&world.token, session, BeginTransactionRequest::default())
            .await
            .unwrap();
        let committed = world
            .pooler
            .commit_transaction(&world.token, session)
            .await
            .unwrap();
        assert_eq!(
            committed.session.unwrap().transaction_status(),
            TransactionStatus::Idle
        );
        assert!(committed.error.is_none());
        let twice = world.pooler.commit_transaction(&world.token, session).await;
        assert_eq!(reason(&twice.unwrap_err()), ErrorReason::TransactionState);
    }
}

#[tokio::test]
async fn what_a_statement_sets_stays_in_a_read_only_session() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    for session in guarded.both_modes().await {
        let run = world
            .run(session, "SET search_path = 'a b'; PREPARE q AS SELECT 7; DECLARE h CURSOR WITH HOLD FOR SELECT 8; LISTEN c")
            .await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{:?}", run.events);
        assert_eq!(world.value(session, "SHOW search_path").await, "\"a b\"");
        assert_eq!(world.value(session, "EXECUTE q").await, "7");
        assert_eq!(world.value(session, "FETCH h").await, "8");
        let pins: Vec<_> = world.describe(session).await.pins().collect();
        if world.describe(session).await.mode() == SessionMode::Auto {
            for pin in [
                PinReason::Setting,
                PinReason::Prepared,
                PinReason::HoldCursor,
                PinReason::Listen,
            ] {
                assert!(pins.contains(&pin), "{pin:?} of {pins:?}");
            }
        }
    }
}

#[tokio::test]
async fn results_are_fetched_in_parts_in_a_read_only_session() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    let suspending = |sql: &str| Script {
        max_rows: Some(4),
        on_limit: OnLimit::Suspend.into(),
        ..split(sql)
    };
    for session in guarded.both_modes().await {
        for in_block in [false, true] {
            if in_block {
                world.run(session, "BEGIN").await;
            }
            let mut run = world
                .execute(session, suspending("SELECT generate_series(1, 10)"))
                .await;
            let Some(Kind::Started(started)) = run.kinds().next() else {
                panic!("{:?}", run.events)
            };
            let execution = started.execution.parse().unwrap();
            let mut rows = run.rows().len();
            while run.outcome() == ExecutionOutcome::Suspended {
                let more = world
                    .pooler
                    .fetch_more(&world.token, execution, FetchMoreRequest::default());
                run = Run::read_from(more.await.unwrap(), run.next_number()).await;
                rows += run.rows().len();
            }
            assert_eq!((run.outcome(), rows), (ExecutionOutcome::Succeeded, 10));
            let open = run.finished().transaction_status() == TransactionStatus::InTransaction;
            assert_eq!(open, in_block);
            // A portal that is left open does not keep the next statement from being guarded.
            world
                .execute(session, suspending("SELECT generate_series(1, 10)"))
                .await;
            let run = world.run(session, "INSERT INTO t VALUES (2)").await;
            assert_eq!(run.sqlstates(), ["25006"]);
            if in_block {
                world.run(session, "ROLLBACK").await;
            }
            let write = world
                .execute(session, suspending("INSERT INTO t VALUES (2) RETURNING n"))
                .await;
            assert_eq!(write.sqlstates(), ["25006"]);
            assert_eq!(write.finished().transaction_status(), TransactionStatus::Idle);
            // Cancelled while it is suspended.
            let run = world
                .execute(session, suspending("SELECT generate_series(1, 10)"))
                .await;
            let Some(Kind::Started(started)) = run.kinds().next() else {
                panic!("{:?}", run.events)
            };
            let execution = started.execution.parse().unwrap();
            world
                .pooler
                .cancel_execution(&world.token, execution)
                .await
                .unwrap();
            let described = world.describe(session).await;
            assert_eq!(described.transaction_status(), TransactionStatus::Idle);
            assert!(!described.pins().any(|pin| pin == PinReason::Portal));
        }
        assert_eq!(guarded.state().await.0, [1]);
    }
}

#[tokio::test]
async fn statement_that_takes_too_long_leaves_a_read_only_session_ready() {
    let guarded = Guarded::new().await;
    for session in guarded.both_modes().await {
        let script = Script {
            statement_timeout: Some(prost_types::Duration {
                seconds: 0,
                nanos: 100_000_000,
            }),
            ..split("SELECT pg_sleep(60)")
        };
        let run = guarded.world.execute(session, script).await;
        assert_eq!(run.outcome(), ExecutionOutcome::TimedOut);
        assert_eq!(run.finished().transaction_status(), TransactionStatus::Idle);
        assert_eq!(guarded.world.value(session, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn copy_goes_out_of_a_read_only_session_and_not_in() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    for session in guarded.both_modes().await {
        let run = world.run(session, "COPY t TO STDOUT").await;
        assert_eq!(run.tags(), ["COPY 1"]);
        assert!(run.kinds().any(|kind| matches!(kind, Kind::CopyData(_))));
        let requests = [CopyInRequest {
            kind: Some(copy_in_request::Kind::Start(CopyInStart {
                session: session.to_string(),
                sql: "COPY t FROM STDIN".to_owned(),
                statement_timeout: None,
            })),
        }];
        let requests = futures::StreamExt::boxed(futures::stream::iter(requests.map(Ok)));
        let refused = world.pooler.copy_in(&world.token, session, requests).await;
        assert_eq!(reason(&refused.unwrap_err()), ErrorReason::SessionReadOnly);
        let script = Script {
            copy_input: vec!["2\n".into()],
            ..split("COPY t FROM STDIN; SELECT 1")
        };
        assert_eq!(world.execute(session, script).await.sqlstates(), ["25006"]);
        assert_eq!(guarded.state().await.0, [1]);
    }
}

#[tokio::test]
async fn repeated_call_reads_what_ran_once_in_a_read_only_session() {
    let guarded = Guarded::new().await;
    let session = guarded.open(SessionMode::Auto).await;
    let request = ExecuteRequest {
        script: Some(split("SELECT pg_backend_pid(), clock_timestamp()")),
        request_id: "0f8b2c1e-8f7e-4c6c-9a53-0d3c2f0a9b11".to_owned(),
        ..Default::default()
    };
    let first = Run::read(guarded.world.try_execute(session, request.clone()).await.unwrap()).await;
    let again = Run::read(guarded.world.try_execute(session, request).await.unwrap()).await;
    assert_eq!(first.events, again.events);
}

#[tokio::test]
async fn script_without_a_session_can_be_read_only() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    let run = async |sql: &str| {
        let request = rpc::pooler::v1::RunScriptRequest {
            server: format!("servers/{}", world.server.id),
            script: Some(split(sql)),
            access: SessionAccess::ReadOnly.into(),
            ..Default::default()
        };
        let stream = world
            .pooler
            .run_script(&world.token, world.server.instance_id, request);
        Run::read(stream.await.unwrap()).await
    };
    assert_eq!(run("SELECT n FROM t").await.rows(), [[Some("1".to_owned())]]);
    assert_eq!(
        run("COMMIT; INSERT INTO t VALUES (2)").await.sqlstates(),
        ["25006"]
    );
    assert_eq!(
        run("BEGIN; SELECT 1").await.outcome(),
        ExecutionOutcome::Succeeded
    );
    assert_eq!(guarded.state().await.0, [1]);
}

#[tokio::test]
async fn session_that_goes_on_at_another_pooler_stays_read_only() {
    let guarded = Guarded::new().await;
    let world = &guarded.world;
    let session = guarded.open(SessionMode::Auto).await;
    world.value(session, "SELECT 1").await;
    let verifier = verifier(&world.store).await;
    let other = start_pooler(&world.store, world.cluster, &world.opening_key, verifier).await;
    let patience = tokio::time::Instant::now() + DEADLINE;
    world.pooler.drain(patience).await;
    let moved = eventually(
        DEADLINE,
        "the other pooler goes on with the session",
        async || other.get_session(&world.token, session).await,
    )
    .await;
    assert_eq!((moved.access(), moved.incarnation), (SessionAccess::ReadOnly, 1));
    let request = ExecuteRequest {
        script: Some(split("INSERT INTO t VALUES (2)")),
        ..Default::default()
    };
    let run = Run::read(other.execute(&world.token, session, request).await.unwrap()).await;
    assert_eq!(run.sqlstates(), ["25006"]);
    assert_eq!(guarded.state().await.0, [1]);
    other.drain(tokio::time::Instant::now()).await;
}
