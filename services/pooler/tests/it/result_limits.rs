//! How much of a result set is sent, and what follows when a statement gives more.

use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::RunScriptRequest;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    ExecutionOutcome, OnError, OnLimit, Parameter, Script, StatementCompleted, TransactionStatus, parameter,
};
use sessions::Sessions as _;
use tonic_types::StatusExt as _;

use crate::cancelling::request;
use crate::support::{DEADLINE, Run, World, one_message, reason, split};

fn completed(run: &Run) -> Vec<&StatementCompleted> {
    let completed = run.kinds().filter_map(|kind| match kind {
        Kind::StatementCompleted(completed) => Some(completed),
        _ => None,
    });
    completed.collect()
}

fn chunk_bytes(run: &Run) -> usize {
    let chunks = run.kinds().filter_map(|kind| match kind {
        Kind::ValueChunk(chunk) => Some(chunk.data.len()),
        _ => None,
    });
    chunks.sum()
}

fn bytes(sql: &str, max_bytes: i64) -> Script {
    Script {
        max_bytes: Some(max_bytes),
        ..split(sql)
    }
}

fn failing(sql: &str, max_rows: i64) -> Script {
    Script {
        max_rows: Some(max_rows),
        on_limit: OnLimit::Fail.into(),
        ..split(sql)
    }
}

#[tokio::test]
async fn values_of_each_result_set_are_sent_up_to_so_many_bytes() {
    let world = World::new().await;
    let session = world.open().await;
    // Two columns, one of them NULL: 10 bytes in a row.
    let sql =
        "SELECT repeat('x', 10), NULL FROM generate_series(1, 5); SELECT repeat('x', 35); SELECT 'small'";
    let run = world.execute(session, bytes(sql, 34)).await;
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    assert_eq!(run.rows().len(), 4);
    let said: Vec<_> = completed(&run)
        .iter()
        .map(|completed| (completed.row_count, completed.truncated))
        .collect();
    assert_eq!(said, [(Some(5), true), (Some(1), true), (Some(1), false)]);
    let all = world.execute(session, bytes(sql, 50)).await;
    assert!(completed(&all).iter().all(|completed| !completed.truncated));
}

#[tokio::test]
async fn rows_after_one_that_does_not_fit_are_left_out_too() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT repeat('x', n) FROM unnest(ARRAY[5, 50, 5]) n";
    let run = world.execute(session, bytes(sql, 20)).await;
    assert_eq!(run.rows(), [[Some("xxxxx".to_owned())]]);
}

#[tokio::test]
async fn large_value_that_does_not_fit_is_not_begun() {
    let world = World::new().await;
    let session = world.open().await;
    // Streamed by itself, in pieces; the third is one too many.
    let sql = "SELECT repeat('x', 1000000) FROM generate_series(1, 3)";
    let run = world.execute(session, bytes(sql, 2_500_000)).await;
    assert_eq!(chunk_bytes(&run), 2_000_000);
    assert_eq!(
        (run.finished().row_count, completed(&run)[0].truncated),
        (2, true)
    );
    // The small value before the large one does not go alone.
    let run = world
        .execute(session, bytes("SELECT 1, repeat('x', 1000000), 2", 999_999))
        .await;
    assert_eq!((chunk_bytes(&run), run.finished().row_count), (0, 0));
    assert!(completed(&run)[0].truncated);
}

#[tokio::test]
async fn statement_with_too_many_rows_is_cancelled_and_the_next_is_not_hit() {
    let world = World::new().await;
    let session = world.open().await;
    let pid = world.describe(session).await.backend_pid;
    let endless = "SELECT generate_series(1, 1000000000)";
    let run = world.execute(session, failing(endless, 100)).await;
    assert_eq!(
        run.outcome(),
        ExecutionOutcome::LimitExceeded,
        "{:?}",
        run.finished()
    );
    assert_eq!(run.sqlstates(), ["57014"]);
    assert!(run.rows().len() <= 100 && run.tags().is_empty());
    let connection = world.cluster.connect().await;
    let state: String = connection
        .query_one("SELECT state FROM pg_stat_activity WHERE pid = $1", &[&pid])
        .await
        .unwrap()
        .get(0);
    assert_eq!(state, "idle");
    for _ in 0..20 {
        assert_eq!(world.value(session, "SELECT pg_sleep(0.002) IS NULL").await, "f");
    }
    assert_eq!(world.describe(session).await.backend_pid, pid);
}

#[tokio::test]
async fn statement_that_had_ended_when_its_limit_was_seen_says_so() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let sql = "INSERT INTO t SELECT generate_series(1, 3) RETURNING a; SELECT 1";
    for round in 1..=20 {
        let run = world.execute(session, failing(sql, 2)).await;
        assert_eq!(run.outcome(), ExecutionOutcome::LimitExceeded);
        let kept: i32 = world
            .value(session, "SELECT count(*) FROM t")
            .await
            .parse()
            .unwrap();
        // It took effect where it is said to have ended, and else not.
        match completed(&run).as_slice() {
            [completed] => {
                assert_eq!(
                    (completed.command_tag.as_str(), completed.truncated),
                    ("INSERT 0 3", true)
                );
                assert_eq!(kept, 3, "round {round}");
            }
            [] => assert_eq!((run.sqlstates(), kept), (vec!["57014"], 0), "round {round}"),
            more => panic!("the script went on: {more:?}"),
        }
        world.run(session, "TRUNCATE t").await;
    }
}

#[tokio::test]
async fn too_large_a_result_fails_its_transaction_block() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "BEGIN").await;
    let run = world
        .execute(session, failing("SELECT generate_series(1, 1000000000)", 10))
        .await;
    assert_eq!(
        (run.outcome(), run.finished().transaction_status()),
        (ExecutionOutcome::LimitExceeded, TransactionStatus::Failed)
    );
    let refused = world.run(session, "SELECT 1").await;
    assert_eq!(refused.sqlstates(), ["25P02"]);
    world.run(session, "ROLLBACK").await;
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn script_ends_where_a_result_is_too_large() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT 1; SELECT generate_series(1, 1000000000); CREATE TABLE never (a int)";
    for on_error in [OnError::Stop, OnError::Continue] {
        let script = Script {
            on_error: on_error.into(),
            ..failing(sql, 10)
        };
        let run = world.execute(session, script).await;
        assert_eq!(
            (run.outcome(), run.tags()),
            (ExecutionOutcome::LimitExceeded, vec!["SELECT 1"])
        );
        assert_eq!(
            world.value(session, "SELECT to_regclass('never') IS NULL").await,
            "t"
        );
    }
    let whole = Script {
        max_rows: Some(10),
        on_limit: OnLimit::Fail.into(),
        ..one_message(sql)
    };
    let run = world.execute(session, whole).await;
    assert_eq!(run.outcome(), ExecutionOutcome::LimitExceeded);
    let with_parameters = Script {
        parameters: vec![Parameter {
            kind: Some(parameter::Kind::Text("1000000000".to_owned())),
            type_oid: 0,
        }],
        ..failing("SELECT generate_series(1, $1)", 10)
    };
    let run = world.execute(session, with_parameters).await;
    assert_eq!(run.outcome(), ExecutionOutcome::LimitExceeded);
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn large_value_beyond_the_limit_fails_before_it_is_begun() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        on_limit: OnLimit::Fail.into(),
        ..bytes(
            "SELECT repeat('x', 1000000) FROM generate_series(1, 1000)",
            2_500_000,
        )
    };
    let run = world.execute(session, script).await;
    assert_eq!(run.outcome(), ExecutionOutcome::LimitExceeded);
    // What waited to be sent when the limit was seen is dropped as after any cancel.
    assert!(chunk_bytes(&run) <= 2_000_000);
    assert!(run.finished().row_count <= 2);
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn result_within_its_limits_does_not_fail() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        max_bytes: Some(3),
        ..failing("SELECT generate_series(1, 3); SELECT 'abc'", 3)
    };
    let run = world.execute(session, script).await;
    assert_eq!(
        (run.outcome(), run.tags()),
        (ExecutionOutcome::Succeeded, vec!["SELECT 3", "SELECT 1"])
    );
}

#[tokio::test]
async fn only_one_statement_in_a_session_can_be_suspended() {
    let world = World::new().await;
    let session = world.open().await;
    let suspending = |script: Script| Script {
        on_limit: OnLimit::Suspend.into(),
        max_rows: Some(1),
        ..script
    };
    let with_data = Script {
        copy_input: vec!["1\n".into()],
        ..split("COPY t FROM STDIN")
    };
    for (script, field) in [
        (split("SELECT 1; SELECT 2"), "script.on_limit"),
        (split(" -- nothing\n;"), "script.on_limit"),
        (one_message("SELECT 1"), "script.on_limit"),
        (with_data, "script.copy_input"),
    ] {
        let mut wish = request("");
        wish.script = Some(suspending(script));
        let refused = world.try_execute(session, wish).await.err().unwrap();
        assert_eq!(reason(&refused), ErrorReason::InvalidField);
        assert_eq!(
            refused.get_details_bad_request().unwrap().field_violations[0].field,
            field
        );
    }
    let run = RunScriptRequest {
        server: format!("servers/{}", world.server.id),
        script: Some(suspending(split("SELECT 1"))),
        ..Default::default()
    };
    let instance = world.server.instance_id;
    let refused = world.pooler.run_script(&world.token, instance, run).await;
    assert_eq!(reason(&refused.err().unwrap()), ErrorReason::InvalidField);
    // What is no limit here does not follow the session around.
    eventually(DEADLINE, "the session is as it was", async || {
        let run = world.run(session, "SELECT 1").await;
        (run.outcome() == ExecutionOutcome::Succeeded)
            .then_some(())
            .ok_or("not yet")
    })
    .await;
}
