//! Results that are fetched in parts: suspended executions, what goes on with them and what ends them.

use domain::limits::Limit;
use domain::session::{ExecutionName, SessionName};
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    BeginTransactionRequest, ExecutionOutcome, FetchMoreRequest, OnDisconnect, OnLimit, OpenSessionRequest,
    Parameter, PinReason, Script, SessionState, TransactionStatus, parameter,
};
use sessions::{EventStream, Sessions as _};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::support::{DEADLINE, Run, World, name, reason, split};

fn suspending(sql: &str, max_rows: i64) -> Script {
    Script {
        max_rows: Some(max_rows),
        on_limit: OnLimit::Suspend.into(),
        ..split(sql)
    }
}

/// An execution that is fetched in parts.
struct Paged {
    name: ExecutionName,
    /// What came last.
    run: Run,
}

impl Paged {
    async fn begin(world: &World, session: SessionName, script: Script) -> Self {
        let run = world.execute(session, script).await;
        let Some(Kind::Started(started)) = run.kinds().next() else {
            panic!("not started: {:?}", run.events)
        };
        Self {
            name: started.execution.parse().unwrap(),
            run,
        }
    }

    /// Goes on as before.
    async fn more(&mut self, world: &World) -> &Run {
        let request = FetchMoreRequest::default();
        let stream = try_more(world, self.name, request).await.unwrap();
        self.read(stream).await
    }

    async fn read(&mut self, stream: EventStream) -> &Run {
        self.run = Run::read_from(stream, self.run.next_number()).await;
        &self.run
    }

    fn outcome(&self) -> ExecutionOutcome {
        self.run.outcome()
    }

    fn backend_pid(&self) -> i32 {
        match self.run.kinds().next() {
            Some(Kind::Started(started)) => started.backend_pid,
            other => panic!("{other:?}"),
        }
    }

    fn pins(&self) -> Vec<PinReason> {
        self.run.finished().pins().collect()
    }

    /// Values of the first column.
    fn numbers(&self) -> Vec<i64> {
        let rows = self.run.rows();
        let numbers = rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap());
        numbers.collect()
    }
}

async fn try_more(
    world: &World,
    name: ExecutionName,
    request: FetchMoreRequest,
) -> Result<EventStream, Status> {
    world.pooler.fetch_more(&world.token, name, request).await
}

async fn portal_is_closed(world: &World, name: ExecutionName) {
    let refused = try_more(world, name, FetchMoreRequest::default()).await;
    assert_eq!(reason(&refused.err().unwrap()), ErrorReason::PortalClosed);
}

async fn both_modes(world: &World) -> [(SessionName, Vec<PinReason>); 2] {
    [
        (world.open().await, vec![PinReason::Mode, PinReason::Portal]),
        (world.open_auto().await, vec![PinReason::Portal]),
    ]
}

#[tokio::test]
async fn pages_hold_every_row_once_and_in_order() {
    let world = World::new().await;
    for (session, pins) in both_modes(&world).await {
        let sql = "SELECT n, 'row ' || n AS text FROM generate_series(1, 10000) n";
        let mut paged = Paged::begin(&world, session, suspending(sql, 777)).await;
        let mut numbers = Vec::new();
        let mut parts = 0;
        while paged.outcome() == ExecutionOutcome::Suspended {
            assert_eq!(paged.numbers().len(), 777);
            assert_eq!(paged.pins(), pins);
            numbers.extend(paged.numbers());
            assert_eq!(paged.run.finished().row_count, numbers.len() as i64);
            assert!(paged.run.tags().is_empty());
            parts += 1;
            let more = paged.more(&world).await;
            let again = more
                .kinds()
                .any(|kind| matches!(kind, Kind::Started(_) | Kind::Columns(_)));
            assert!(!again, "started and columns come once");
        }
        assert_eq!((paged.outcome(), parts), (ExecutionOutcome::Succeeded, 12));
        numbers.extend(paged.numbers());
        assert!(numbers.iter().copied().eq(1..=10_000), "{} rows", numbers.len());
        assert_eq!(paged.run.finished().row_count, 10_000);
        // The server's own count is of the last part.
        assert_eq!(paged.run.tags(), ["SELECT 676"]);
        assert!(!paged.pins().contains(&PinReason::Portal));
        portal_is_closed(&world, paged.name).await;
        assert_eq!(world.value(session, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn server_gets_no_further_than_it_is_asked() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE SEQUENCE s").await;
    let watcher = world.target.connect().await;
    let reached = async || -> i64 {
        let row = watcher.query_one("SELECT last_value FROM s", &[]).await.unwrap();
        row.get(0)
    };
    let sql = "SELECT nextval('s') FROM generate_series(1, 1000000)";
    let mut paged = Paged::begin(&world, session, suspending(sql, 100)).await;
    assert_eq!(reached().await, 100);
    paged.more(&world).await;
    assert_eq!(reached().await, 200);
    let request = FetchMoreRequest {
        max_rows: Some(5),
        ..Default::default()
    };
    let stream = try_more(&world, paged.name, request).await.unwrap();
    paged.read(stream).await;
    assert_eq!(
        (reached().await, paged.numbers()),
        (205, vec![201, 202, 203, 204, 205])
    );
    // What is asked for once is what "as before" means from then on.
    paged.more(&world).await;
    assert_eq!(reached().await, 210);
}

#[tokio::test]
async fn rest_comes_at_once_where_all_is_asked_for() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let sql = "SELECT generate_series(1, 5000)";
    let mut paged = Paged::begin(&world, session, suspending(sql, 10)).await;
    let request = FetchMoreRequest {
        max_rows: Some(0),
        page_size: 100,
        ..Default::default()
    };
    let stream = try_more(&world, paged.name, request).await.unwrap();
    paged.read(stream).await;
    assert_eq!(
        (paged.outcome(), paged.numbers().len(), paged.pins()),
        (ExecutionOutcome::Succeeded, 4990, vec![])
    );
    assert!(paged.run.messages >= 49);
}

#[tokio::test]
async fn result_that_ends_at_the_limit_has_an_empty_last_part() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT generate_series(1, 10)";
    let mut paged = Paged::begin(&world, session, suspending(sql, 10)).await;
    assert_eq!(
        (paged.outcome(), paged.numbers().len()),
        (ExecutionOutcome::Suspended, 10)
    );
    paged.more(&world).await;
    assert_eq!(
        (paged.outcome(), paged.numbers().len()),
        (ExecutionOutcome::Succeeded, 0)
    );
}

#[tokio::test]
async fn portal_takes_parameters() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        parameters: vec![Parameter {
            kind: Some(parameter::Kind::Text("5".to_owned())),
            type_oid: 0,
        }],
        ..suspending("SELECT generate_series(1, $1::int)", 3)
    };
    let mut paged = Paged::begin(&world, session, script).await;
    assert_eq!(paged.numbers(), [1, 2, 3]);
    paged.more(&world).await;
    assert_eq!(
        (paged.numbers(), paged.outcome()),
        (vec![4, 5], ExecutionOutcome::Succeeded)
    );
}

#[tokio::test]
async fn bytes_suspend_after_the_page_in_which_they_were_reached() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        max_rows: None,
        max_bytes: Some(2500),
        page_size: 10,
        ..suspending("SELECT n, repeat('x', 99) FROM generate_series(1, 100) n", 0)
    };
    let mut paged = Paged::begin(&world, session, script).await;
    // 20 rows have less than 2500 bytes, 30 more.
    assert_eq!(
        (paged.outcome(), paged.numbers().len()),
        (ExecutionOutcome::Suspended, 30)
    );
    let mut numbers = paged.numbers();
    while paged.outcome() == ExecutionOutcome::Suspended {
        paged.more(&world).await;
        numbers.extend(paged.numbers());
    }
    assert!(numbers.iter().copied().eq(1..=100));
}

#[tokio::test]
async fn large_values_suspend_too_and_none_is_lost() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        max_rows: None,
        max_bytes: Some(1_500_000),
        page_size: 1,
        ..suspending("SELECT repeat(n::text, 1000000) FROM generate_series(1, 5) n", 0)
    };
    let mut paged = Paged::begin(&world, session, script).await;
    let (mut parts, mut bytes) = (Vec::new(), Vec::new());
    loop {
        for kind in paged.run.kinds() {
            if let Kind::ValueChunk(chunk) = kind {
                bytes.extend_from_slice(&chunk.data);
            }
        }
        parts.push(paged.run.finished().row_count);
        if paged.outcome() != ExecutionOutcome::Suspended {
            break;
        }
        paged.more(&world).await;
    }
    assert_eq!(
        (paged.outcome(), parts),
        (ExecutionOutcome::Succeeded, vec![2, 4, 5])
    );
    let expected = (1..=5_u8).flat_map(|n| std::iter::repeat_n(b'0' + n, 1_000_000));
    assert!(bytes.iter().copied().eq(expected));
}

#[tokio::test]
async fn what_returns_no_rows_ends_as_ever() {
    let world = World::new().await;
    let session = world.open_auto().await;
    for (sql, tag) in [
        (
            "CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TABLE",
        ),
        ("INSERT INTO t VALUES (1), (2), (3)", "INSERT 0 3"),
        ("VACUUM t", "VACUUM"),
        ("UPDATE t SET a = a + 1;", "UPDATE 3"),
    ] {
        let run = world.execute(session, suspending(sql, 1)).await;
        assert_eq!(
            (run.outcome(), run.tags(), run.finished().pins.len()),
            (ExecutionOutcome::Succeeded, vec![tag], 0),
            "{:?}",
            run.events
        );
    }
    assert_eq!(world.value(session, "SELECT sum(a) FROM t").await, "9");
    // The transaction ends with the Sync, and may fail there.
    let run = world
        .execute(session, suspending("INSERT INTO t VALUES (2)", 1))
        .await;
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Failed, vec!["23505"])
    );
    let run = world.execute(session, suspending("COPY t FROM STDIN", 1)).await;
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Failed, vec!["57014"])
    );
    let run = world.execute(session, suspending("COPY t TO STDOUT", 1)).await;
    assert_eq!(
        (run.outcome(), run.tags()),
        (ExecutionOutcome::Succeeded, vec!["COPY 3"])
    );
    let run = world.execute(session, suspending("SELECT nothing_here", 1)).await;
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Failed, vec!["42703"])
    );
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "3");
}

#[tokio::test]
async fn rows_that_were_changed_can_be_fetched_in_parts() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let sql = "INSERT INTO t SELECT generate_series(1, 10) RETURNING a";
    let mut paged = Paged::begin(&world, session, suspending(sql, 4)).await;
    let mut numbers = paged.numbers();
    let others = world.target.connect().await;
    let seen: i64 = others
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, 0, "its transaction is open");
    while paged.outcome() == ExecutionOutcome::Suspended {
        paged.more(&world).await;
        numbers.extend(paged.numbers());
    }
    assert!(numbers.iter().copied().eq(1..=10));
    let seen: i64 = others
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, 10);
}

#[tokio::test]
async fn error_in_a_later_part_ends_the_execution() {
    let world = World::new().await;
    for (session, pins) in both_modes(&world).await {
        let sql = "SELECT 10 / (25 - n), n FROM generate_series(1, 100) n";
        let mut paged = Paged::begin(&world, session, suspending(sql, 10)).await;
        paged.more(&world).await;
        assert_eq!(
            (paged.outcome(), paged.pins()),
            (ExecutionOutcome::Suspended, pins)
        );
        let more = paged.more(&world).await;
        assert_eq!(
            (more.outcome(), more.sqlstates()),
            (ExecutionOutcome::Failed, vec!["22012"])
        );
        assert_eq!((more.rows().len(), more.finished().row_count), (4, 24));
        portal_is_closed(&world, paged.name).await;
        let execution = world
            .pooler
            .get_execution(&world.token, paged.name)
            .await
            .unwrap();
        assert_eq!(
            (
                execution.outcome(),
                execution.suspended,
                execution.error.is_some()
            ),
            (ExecutionOutcome::Failed, false, true)
        );
        assert_eq!(world.value(session, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn portal_lives_in_an_open_block_and_the_block_outlives_it() {
    let world = World::new().await;
    let session = world.open_auto().await;
    world
        .run(
            session,
            "BEGIN; CREATE TABLE t AS SELECT generate_series(1, 10) AS a",
        )
        .await;
    let mut paged = Paged::begin(&world, session, suspending("SELECT a FROM t ORDER BY a", 4)).await;
    assert_eq!(paged.pins(), [PinReason::Transaction, PinReason::Portal]);
    assert_eq!(
        paged.run.finished().transaction_status(),
        TransactionStatus::InTransaction
    );
    paged.more(&world).await;
    assert_eq!(paged.numbers(), [5, 6, 7, 8]);
    // The session can do something else, and the block goes on.
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "10");
    portal_is_closed(&world, paged.name).await;
    let held: Vec<_> = world.describe(session).await.pins().collect();
    assert_eq!(held, [PinReason::Transaction]);
    let mut paged = Paged::begin(&world, session, suspending("SELECT a FROM t ORDER BY a", 4)).await;
    world
        .pooler
        .cancel_execution(&world.token, paged.name)
        .await
        .unwrap();
    let session_then = world.describe(session).await;
    assert_eq!(
        session_then.transaction_status(),
        TransactionStatus::InTransaction
    );
    paged = Paged::begin(&world, session, suspending("SELECT a FROM t ORDER BY a", 4)).await;
    assert_eq!(paged.outcome(), ExecutionOutcome::Suspended);
    let committed = world
        .pooler
        .commit_transaction(&world.token, session)
        .await
        .unwrap();
    assert!(committed.error.is_none());
    assert_eq!(committed.session.unwrap().pins.len(), 0);
    portal_is_closed(&world, paged.name).await;
}

#[tokio::test]
async fn suspended_execution_says_so() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let sql = "SELECT generate_series(1, 100)";
    let mut paged = Paged::begin(&world, session, suspending(sql, 10)).await;
    let execution = world
        .pooler
        .get_execution(&world.token, paged.name)
        .await
        .unwrap();
    assert_eq!(
        (
            execution.suspended,
            execution.running,
            execution.row_count,
            execution.outcome()
        ),
        (true, false, 10, ExecutionOutcome::Suspended)
    );
    assert!(execution.end_time.is_none());
    let described = world.describe(session).await;
    assert_eq!(described.state(), SessionState::Idle);
    assert_eq!(described.pins().collect::<Vec<_>>(), [PinReason::Portal]);
    assert!(described.backend_pid != 0);
    let alive = world
        .pooler
        .keep_session_alive(&world.token, session)
        .await
        .unwrap();
    assert_eq!(alive.pins().collect::<Vec<_>>(), [PinReason::Portal]);
    let request = FetchMoreRequest {
        max_rows: Some(0),
        ..Default::default()
    };
    let stream = try_more(&world, paged.name, request).await.unwrap();
    paged.read(stream).await;
    let execution = world
        .pooler
        .get_execution(&world.token, paged.name)
        .await
        .unwrap();
    assert_eq!((execution.suspended, execution.row_count), (false, 100));
    assert!(execution.end_time.is_some());
    let described = world.describe(session).await;
    assert_eq!((described.pins.len(), described.backend_pid), (0, 0));
}

#[tokio::test]
async fn whatever_comes_next_closes_the_portal_first() {
    let world = World::new().await;
    for (session, _) in both_modes(&world).await {
        let sql = "SELECT generate_series(1, 100)";
        let suspended = async || Paged::begin(&world, session, suspending(sql, 10)).await;
        let first = suspended().await;
        let second = suspended().await;
        assert_eq!(second.outcome(), ExecutionOutcome::Suspended);
        portal_is_closed(&world, first.name).await;
        let begun = BeginTransactionRequest {
            session: session.to_string(),
            ..Default::default()
        };
        let begun = world
            .pooler
            .begin_transaction(&world.token, session, begun)
            .await
            .unwrap();
        assert_eq!(begun.transaction_status(), TransactionStatus::InTransaction);
        portal_is_closed(&world, second.name).await;
        let third = suspended().await;
        world
            .pooler
            .rollback_transaction(&world.token, session)
            .await
            .unwrap();
        portal_is_closed(&world, third.name).await;
        // What is refused closes nothing.
        let fourth = suspended().await;
        let refused = world.pooler.commit_transaction(&world.token, session).await;
        assert_eq!(reason(&refused.unwrap_err()), ErrorReason::TransactionState);
        let execution = world
            .pooler
            .get_execution(&world.token, fourth.name)
            .await
            .unwrap();
        assert!(execution.suspended);
    }
}

#[tokio::test]
async fn transaction_that_cannot_end_is_told_before_anything_else_runs() {
    let world = World::new().await;
    let session = world.open().await;
    world
        .run(
            session,
            "CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        )
        .await;
    let sql = "INSERT INTO t VALUES (1), (1) RETURNING a";
    Paged::begin(&world, session, suspending(sql, 1)).await;
    let run = world.run(session, "CREATE TABLE never (a int)").await;
    assert_eq!(
        (run.outcome(), run.sqlstates(), run.tags().len()),
        (ExecutionOutcome::Failed, vec!["23505"], 0)
    );
    assert_eq!(
        world.value(session, "SELECT to_regclass('never') IS NULL").await,
        "t"
    );
    let paged = Paged::begin(&world, session, suspending(sql, 1)).await;
    world
        .pooler
        .cancel_execution(&world.token, paged.name)
        .await
        .unwrap();
    let execution = world
        .pooler
        .get_execution(&world.token, paged.name)
        .await
        .unwrap();
    assert_eq!(execution.outcome(), ExecutionOutcome::Failed);
    assert_eq!(execution.error.unwrap().message.unwrap().sqlstate, "23505");
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn cancelling_a_suspended_execution_closes_its_portal() {
    let world = World::new().await;
    for (session, pins) in both_modes(&world).await {
        let sql = "SELECT generate_series(1, 100)";
        let paged = Paged::begin(&world, session, suspending(sql, 10)).await;
        world
            .pooler
            .cancel_execution(&world.token, paged.name)
            .await
            .unwrap();
        let execution = world
            .pooler
            .get_execution(&world.token, paged.name)
            .await
            .unwrap();
        assert_eq!(
            (execution.outcome(), execution.suspended, execution.row_count),
            (ExecutionOutcome::Cancelled, false, 10)
        );
        portal_is_closed(&world, paged.name).await;
        let again = world.pooler.cancel_execution(&world.token, paged.name).await;
        assert_eq!(reason(&again.unwrap_err()), ErrorReason::ExecutionFinished);
        let without = pins.into_iter().filter(|pin| *pin != PinReason::Portal);
        let held: Vec<_> = world.describe(session).await.pins().collect();
        assert_eq!(held, without.collect::<Vec<_>>());
        assert_eq!(world.value(session, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn part_that_is_being_fetched_can_be_cancelled_and_refuses_others() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT n, CASE WHEN n > 10 THEN pg_sleep(60) END FROM generate_series(1, 100) n";
    let mut paged = Paged::begin(&world, session, suspending(sql, 10)).await;
    let stream = try_more(&world, paged.name, FetchMoreRequest::default())
        .await
        .unwrap();
    let pid = world.describe(session).await.backend_pid;
    let watcher = world.cluster.connect().await;
    let sleeps = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1";
    eventually(DEADLINE, "the server is in the middle of the part", async || {
        let row = watcher.query_one(sleeps, &[&pid]).await.unwrap();
        row.get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
    let busy = try_more(&world, paged.name, FetchMoreRequest::default()).await;
    assert_eq!(reason(&busy.err().unwrap()), ErrorReason::SessionBusy);
    let execution = world
        .pooler
        .get_execution(&world.token, paged.name)
        .await
        .unwrap();
    assert_eq!(
        (execution.running, execution.suspended, execution.row_count),
        (true, false, 10)
    );
    world
        .pooler
        .cancel_execution(&world.token, paged.name)
        .await
        .unwrap();
    let run = paged.read(stream).await;
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Cancelled, vec!["57014"])
    );
    for _ in 0..20 {
        assert_eq!(world.value(session, "SELECT pg_sleep(0.002) IS NULL").await, "f");
    }
}

#[tokio::test]
async fn cancellation_that_comes_with_the_end_of_a_part_hits_nothing_else() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT generate_series(1, 1000000)";
    for round in 0..40 {
        let paged = Paged::begin(&world, session, suspending(sql, 10)).await;
        let stream = try_more(&world, paged.name, FetchMoreRequest::default())
            .await
            .unwrap();
        let (cancelled, run) = tokio::join!(
            world.pooler.cancel_execution(&world.token, paged.name),
            Run::read_from(stream, paged.run.next_number())
        );
        cancelled.unwrap();
        let ended = [ExecutionOutcome::Cancelled, ExecutionOutcome::Suspended];
        assert!(ended.contains(&run.outcome()), "round {round}: {:?}", run.events);
        portal_is_closed(&world, paged.name).await;
        assert_eq!(world.value(session, "SELECT pg_sleep(0.002) IS NULL").await, "f");
    }
}

#[tokio::test]
async fn each_part_has_the_time_of_a_statement() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        statement_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 700_000_000,
        }),
        ..suspending(
            "SELECT n, pg_sleep(CASE WHEN n < 9 THEN 0.1 ELSE 60 END) FROM generate_series(1, 100) n",
            4,
        )
    };
    let mut paged = Paged::begin(&world, session, script).await;
    paged.more(&world).await;
    assert_eq!(paged.outcome(), ExecutionOutcome::Suspended);
    let more = paged.more(&world).await;
    assert_eq!(
        (more.outcome(), more.sqlstates()),
        (ExecutionOutcome::TimedOut, vec!["57014"])
    );
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn servers_own_time_limit_counts_from_the_first_part() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "SET statement_timeout = '300ms'").await;
    let sql = "SELECT generate_series(1, 1000000000)";
    let mut paged = Paged::begin(&world, session, suspending(sql, 1)).await;
    tokio::time::timeout(DEADLINE, async {
        while paged.outcome() == ExecutionOutcome::Suspended {
            paged.more(&world).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(
        (paged.outcome(), paged.run.sqlstates()),
        (ExecutionOutcome::Failed, vec!["57014"])
    );
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn servers_own_time_limit_that_ends_a_part_just_after_its_last_row_does_not_end_the_session() {
    let world = World::new().await;
    let outside = world.target.connect().await;
    // The server does not look at its limit before it has hashed it all and said that the portal is suspended.
    let hashes = ["md5(x)"; 50].join(" || ");
    let sql = format!(
        "SELECT {hashes} FROM generate_series(1, 3) n, \
         LATERAL (SELECT repeat(repeat('x', 1000000), 20 + n - n) AS x OFFSET 0) s"
    );
    for session in [world.open().await, world.open_auto().await] {
        let begin = async || {
            let paged = loop {
                let begin = "BEGIN; SET LOCAL statement_timeout = '500ms'";
                world.run(session, begin).await;
                let paged = Paged::begin(&world, session, suspending(&sql, 1)).await;
                if paged.outcome() == ExecutionOutcome::Suspended {
                    break paged;
                }
                // On a busy machine its first row may take longer than that.
                world.run(session, "ROLLBACK").await;
            };
            // The server gives it up, and with it the lock that every transaction has.
            let locks = format!(
                "SELECT count(*) FROM pg_locks WHERE pid = {}",
                paged.backend_pid()
            );
            eventually(DEADLINE, "the server gave it up", async || {
                let left: i64 = outside.query_one(&locks, &[]).await.unwrap().get(0);
                (left == 0).then_some(()).ok_or(left)
            })
            .await;
            paged
        };
        let mut paged = begin().await;
        paged.more(&world).await;
        assert_eq!(
            (paged.outcome(), paged.run.sqlstates()),
            (ExecutionOutcome::Failed, vec!["57014"])
        );
        let status = paged.run.finished().transaction_status();
        assert_eq!(status, TransactionStatus::Failed);
        world.run(session, "ROLLBACK").await;
        // Whoever runs something else instead hears of it too.
        begin().await;
        let next = world.execute(session, split("SELECT 1")).await;
        assert_eq!(next.sqlstates(), ["57014"]);
        world.run(session, "ROLLBACK").await;
        // But for who rolls it back, in whichever way.
        begin().await;
        let rolled_back = world.run(session, "ROLLBACK").await;
        assert_eq!(rolled_back.tags(), ["ROLLBACK"], "{:?}", rolled_back.events);
        assert_eq!(
            (rolled_back.outcome(), rolled_back.finished().transaction_status()),
            (ExecutionOutcome::Succeeded, TransactionStatus::Idle)
        );
        begin().await;
        let rolled_back = world.pooler.rollback_transaction(&world.token, session).await;
        assert_eq!(rolled_back.unwrap().transaction_status(), TransactionStatus::Idle);
        assert_eq!(world.value(session, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn reader_of_a_part_that_goes_away_cancels_or_not() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT n, CASE WHEN n = 11 THEN pg_sleep(0.3) END FROM generate_series(1, 100) n";
    for (on_disconnect, outcome) in [
        (OnDisconnect::Cancel, ExecutionOutcome::Cancelled),
        (OnDisconnect::Continue, ExecutionOutcome::Suspended),
    ] {
        let paged = Paged::begin(&world, session, suspending(sql, 10)).await;
        let request = FetchMoreRequest {
            on_disconnect: on_disconnect.into(),
            ..Default::default()
        };
        drop(try_more(&world, paged.name, request).await.unwrap());
        eventually(DEADLINE, "the part is over", async || {
            let execution = world
                .pooler
                .get_execution(&world.token, paged.name)
                .await
                .unwrap();
            (!execution.running)
                .then(|| assert_eq!(execution.outcome(), outcome))
                .ok_or("it runs")
        })
        .await;
    }
}

fn cause(status: &Status) -> (String, String) {
    assert_eq!(reason(status), ErrorReason::SessionStateLost, "{status:?}");
    let metadata = status.get_details_error_info().unwrap().metadata.clone();
    (metadata["cause"].clone(), metadata["pins"].clone())
}

async fn loss_of(world: &World, session: SessionName) -> (String, String) {
    eventually(DEADLINE, "the session is gone", async || {
        match world.pooler.get_session(&world.token, session).await {
            Ok(_) => Err("it is still there"),
            Err(status) => Ok(cause(&status)),
        }
    })
    .await
}

#[tokio::test]
async fn suspended_execution_is_an_open_transaction_to_the_idle_limit() {
    let world = World::new().await;
    let limit = Some(prost_types::Duration {
        seconds: 0,
        nanos: 500_000_000,
    });
    for (wish, pins) in [
        (world.open_request(), "MODE,PORTAL"),
        (world.auto_request(), "PORTAL"),
    ] {
        let wish = OpenSessionRequest {
            idle_in_transaction_timeout: limit,
            ..wish
        };
        let session = name(&world.try_open(wish).await.unwrap());
        world.run(session, "CREATE TABLE IF NOT EXISTS t (a int)").await;
        let sql = "INSERT INTO t SELECT generate_series(1, 10) RETURNING a";
        let paged = Paged::begin(&world, session, suspending(sql, 4)).await;
        let lost = loss_of(&world, session).await;
        assert_eq!(lost, ("idle_in_transaction_timeout".to_owned(), pins.to_owned()));
        let refused = try_more(&world, paged.name, FetchMoreRequest::default()).await;
        assert_eq!(cause(&refused.err().unwrap()), lost);
    }
    let others = world.target.connect().await;
    eventually(DEADLINE, "nothing was kept", async || {
        let row = others.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
        (row.get::<_, i64>(0) == 0).then_some(()).ok_or("rows are there")
    })
    .await;
}

#[tokio::test]
async fn suspended_execution_counts_against_the_limit_of_a_transaction() {
    let world = World::new().await;
    world.set_limits(&[(Limit::TransactionTimeout, 800)]).await;
    let session = world.open().await;
    let paged = Paged::begin(&world, session, suspending("SELECT generate_series(1, 100)", 4)).await;
    assert_eq!(paged.outcome(), ExecutionOutcome::Suspended);
    let lost = loss_of(&world, session).await;
    assert_eq!(lost, ("transaction_timeout".to_owned(), "MODE,PORTAL".to_owned()));
}

#[tokio::test]
async fn session_can_be_closed_while_it_is_suspended() {
    let world = World::new().await;
    for (session, _) in both_modes(&world).await {
        let pid = {
            Paged::begin(&world, session, suspending("SELECT generate_series(1, 100)", 4)).await;
            world.describe(session).await.backend_pid
        };
        world.pooler.close_session(&world.token, session).await.unwrap();
        let connection = world.cluster.connect().await;
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        let left: i64 = connection.query_one(gone, &[&pid]).await.unwrap().get(0);
        assert_eq!(left, 0, "a backend in the middle of a portal is for nobody else");
    }
}

#[tokio::test]
async fn backend_that_dies_takes_the_portal_with_it() {
    let world = World::new().await;
    for ((session, _), pins) in both_modes(&world)
        .await
        .into_iter()
        .zip(["MODE,PORTAL", "PORTAL"])
    {
        Paged::begin(&world, session, suspending("SELECT generate_series(1, 100)", 4)).await;
        let pid = world.describe(session).await.backend_pid;
        let connection = world.cluster.connect().await;
        connection
            .execute("SELECT pg_terminate_backend($1)", &[&pid])
            .await
            .unwrap();
        let lost = loss_of(&world, session).await;
        assert_eq!(lost, ("backend_terminated".to_owned(), pins.to_owned()));
    }
}

#[tokio::test]
async fn suspended_session_keeps_its_backend_when_others_want_it() {
    let world = World::new().await;
    world.set_budget(2, 0).await;
    let session = world.open_auto().await;
    let sql = "SELECT generate_series(1, 100)";
    let mut paged = Paged::begin(&world, session, suspending(sql, 50)).await;
    let others = [
        world.open_auto().await,
        world.open_auto().await,
        world.open_auto().await,
    ];
    let runs = others
        .iter()
        .map(|other| world.run(*other, "SELECT pg_sleep(0.05)"));
    for run in futures::future::join_all(runs).await {
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded, "{:?}", run.events);
    }
    paged.more(&world).await;
    assert_eq!(paged.numbers(), (51..=100).collect::<Vec<_>>());
    paged.more(&world).await;
    assert_eq!(
        (paged.outcome(), paged.pins()),
        (ExecutionOutcome::Succeeded, vec![])
    );
}

#[tokio::test]
async fn state_that_the_statement_left_is_found_when_its_portal_is_closed() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let sql = "SELECT pg_advisory_lock(n) FROM generate_series(1, 10) n";
    let paged = Paged::begin(&world, session, suspending(sql, 4)).await;
    assert_eq!(paged.pins(), [PinReason::Portal], "nobody looks meanwhile");
    world
        .pooler
        .cancel_execution(&world.token, paged.name)
        .await
        .unwrap();
    let held: Vec<_> = world.describe(session).await.pins().collect();
    assert_eq!(held, [PinReason::AdvisoryLock]);
    assert_eq!(
        world
            .value(
                session,
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            )
            .await,
        "4"
    );
}

#[tokio::test]
async fn drain_ends_what_is_suspended_in_the_end() {
    let world = World::new().await;
    let session = world.open().await;
    Paged::begin(&world, session, suspending("SELECT generate_series(1, 100)", 4)).await;
    let pid = world.describe(session).await.backend_pid;
    world.pooler.drain(tokio::time::Instant::now()).await;
    let connection = world.cluster.connect().await;
    let left: i64 = connection
        .query_one("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", &[&pid])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn others_portals_are_nobodys_business() {
    let world = World::new().await;
    let session = world.open().await;
    let paged = Paged::begin(&world, session, suspending("SELECT generate_series(1, 100)", 4)).await;
    let other = world.other_user().await;
    let refused = world
        .pooler
        .fetch_more(&other, paged.name, FetchMoreRequest::default())
        .await;
    assert_eq!(reason(&refused.err().unwrap()), ErrorReason::ResourceNotFound);
    let wrong = FetchMoreRequest {
        max_rows: Some(-1),
        ..Default::default()
    };
    let refused = try_more(&world, paged.name, wrong).await;
    assert_eq!(reason(&refused.err().unwrap()), ErrorReason::InvalidField);
}
