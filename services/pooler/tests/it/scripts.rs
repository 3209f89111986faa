//! What a script's events say.

use std::time::Duration;

use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    ExecuteRequest, ExecutionOutcome, OnError, Parameter, PinReason, Script, ServerMessage,
    TransactionStatus, parameter,
};

use sessions::Sessions as _;

use crate::support::{World, one_message, reason, split};

#[tokio::test]
async fn select_of_one_row_is_one_message() {
    let world = World::new().await;
    let session = world.open().await;
    let run = world.run(session, "SELECT 1 AS a, NULL AS b, 'é' AS c").await;
    assert_eq!(run.messages, 1, "{:?}", run.events);
    assert_eq!(run.rows(), [[Some("1".to_owned()), None, Some("é".to_owned())]]);
    let kinds: Vec<_> = run.kinds().collect();
    let [
        Kind::Started(started),
        Kind::Columns(columns),
        Kind::Rows(_),
        Kind::StatementCompleted(done),
        Kind::Finished(finished),
    ] = kinds.as_slice()
    else {
        panic!("{kinds:?}")
    };
    assert!(started.execution.starts_with(&session.to_string()));
    assert!(started.backend_pid > 0);
    let names: Vec<_> = columns
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.type_name.as_str()))
        .collect();
    assert_eq!(names, [("a", "int4"), ("b", "text"), ("c", "text")]);
    assert_eq!((done.command_tag.as_str(), done.row_count), ("SELECT 1", Some(1)));
    assert_eq!(finished.outcome(), ExecutionOutcome::Succeeded);
    assert_eq!(finished.transaction_status(), TransactionStatus::Idle);
    assert_eq!(finished.pins().collect::<Vec<_>>(), [PinReason::Mode]);
}

#[tokio::test]
async fn split_script_stops_or_continues_after_an_error() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "CREATE TABLE t (a int); INSERT INTO t VALUES (1);\n SELEC 1; INSERT INTO t VALUES (2)";
    let run = world.run(session, sql).await;
    assert_eq!(run.tags(), ["CREATE TABLE", "INSERT 0 1"]);
    assert_eq!(run.outcome(), ExecutionOutcome::Failed);
    let error = run.errors()[0];
    assert_eq!(
        (error.statement_index, error.message.as_ref().unwrap().position),
        (2, 1)
    );
    // In characters of the whole script, from 1.
    assert_eq!(error.script_position as usize, sql.find("SELEC").unwrap() + 1);
    let script = Script {
        on_error: OnError::Continue.into(),
        ..split("é; INSERT INTO t VALUES (3)")
    };
    let run = world.execute(session, script).await;
    assert_eq!((run.tags(), run.sqlstates()), (vec!["INSERT 0 1"], vec!["42601"]));
    assert_eq!(world.value(session, "SELECT sum(a) FROM t").await, "4");
}

#[tokio::test]
async fn one_message_is_one_transaction() {
    let world = World::new().await;
    let session = world.open().await;
    let run = world
        .execute(
            session,
            one_message("CREATE TABLE t (a int); INSERT INTO t VALUES (1); SELECT 1/0"),
        )
        .await;
    assert_eq!(run.tags(), ["CREATE TABLE", "INSERT 0 1"]);
    assert_eq!(run.errors()[0].statement_index, 2);
    assert_eq!(world.value(session, "SELECT to_regclass('t') IS NULL").await, "t");
}

#[tokio::test]
async fn empty_scripts_and_statements_are_fine() {
    let world = World::new().await;
    let session = world.open().await;
    for script in [split(""), split(" ;; -- nothing"), one_message("")] {
        let run = world.execute(session, script).await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    }
}

#[tokio::test]
async fn parameters_are_values_and_never_sql() {
    let world = World::new().await;
    let session = world.open().await;
    let text = |text: &str, type_oid| Parameter {
        kind: Some(parameter::Kind::Text(text.into())),
        type_oid,
    };
    let null = Parameter {
        kind: Some(parameter::Kind::Null(true)),
        type_oid: 25,
    };
    let parameters = vec![text("'; DROP TABLE x; --", 25), text("41", 23), null];
    let script = Script {
        parameters,
        ..split("SELECT $1, $2 + 1, $3")
    };
    let run = world.execute(session, script).await;
    assert_eq!(
        run.rows(),
        [[
            Some("'; DROP TABLE x; --".to_owned()),
            Some("42".to_owned()),
            None
        ]]
    );
    // Several statements are the server's to refuse, and the session lives on.
    let script = Script {
        parameters: vec![text("1", 23)],
        ..split("SELECT $1; SELECT 2")
    };
    assert_eq!(world.execute(session, script).await.sqlstates(), ["42601"]);
    let script = Script {
        parameters: vec![text("x", 23)],
        ..split("SELECT $1")
    };
    assert_eq!(world.execute(session, script).await.sqlstates(), ["22P02"]);
    assert_eq!(world.value(session, "SELECT 7").await, "7");
}

#[tokio::test]
async fn notices_and_changed_parameters_come_in_their_order() {
    let world = World::new().await;
    let session = world.open().await;
    let run = world
        .run(
            session,
            "DO $$BEGIN RAISE NOTICE 'hello' USING HINT = 'world'; END$$; SET TimeZone = 'Asia/Tokyo'",
        )
        .await;
    let notices: Vec<&ServerMessage> = run
        .kinds()
        .filter_map(|kind| match kind {
            Kind::Notice(notice) => notice.message.as_ref(),
            _ => None,
        })
        .collect();
    assert_eq!(
        (notices[0].message.as_str(), notices[0].hint.as_str()),
        ("hello", "world")
    );
    let changed = run.kinds().any(
        |kind| matches!(kind, Kind::ParameterChanged(changed) if changed.name == "TimeZone" && changed.value == "Asia/Tokyo"),
    );
    assert!(changed, "{:?}", run.events);
}

#[tokio::test]
async fn rows_beyond_the_limit_are_dropped_but_counted() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        max_rows: Some(2),
        ..split("SELECT generate_series(1, 5); SELECT 6")
    };
    let run = world.execute(session, script).await;
    assert_eq!(run.rows().len(), 3);
    let completed: Vec<_> = run
        .kinds()
        .filter_map(|kind| match kind {
            Kind::StatementCompleted(completed) => Some((completed.row_count, completed.truncated)),
            _ => None,
        })
        .collect();
    assert_eq!(completed, [(Some(5), true), (Some(1), false)]);
    assert_eq!(run.finished().row_count, 3);
}

#[tokio::test]
async fn pages_hold_as_many_rows_as_asked_for() {
    let world = World::new().await;
    let session = world.open().await;
    let script = Script {
        page_size: 10,
        ..split("SELECT generate_series(1, 100)")
    };
    let run = world.execute(session, script).await;
    assert!(run.messages >= 10, "{} messages", run.messages);
    let most = run.kinds().filter_map(|kind| match kind {
        Kind::Rows(batch) => Some(batch.rows.len()),
        _ => None,
    });
    assert_eq!(most.max(), Some(10));
    assert_eq!(run.rows().len(), 100);
}

#[tokio::test]
async fn nul_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let session = world.open().await;
    let request = ExecuteRequest {
        script: Some(split("SELECT '\0'")),
        ..Default::default()
    };
    let refused = world.try_execute(session, request).await.err().unwrap();
    assert_eq!(reason(&refused), ErrorReason::InvalidField);
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn function_body_in_standard_sql_is_not_cut() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT f()";
    let run = world.run(session, sql).await;
    assert_eq!(run.tags(), ["CREATE FUNCTION", "SELECT 1"]);
    assert_eq!(run.rows(), [[Some("2".to_owned())]]);
}

#[tokio::test]
async fn started_is_sent_while_the_statement_still_runs() {
    let world = World::new().await;
    let session = world.open().await;
    let request = ExecuteRequest {
        script: Some(split("SELECT pg_sleep(30)")),
        ..Default::default()
    };
    let mut stream = world.try_execute(session, request).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(5), futures::StreamExt::next(&mut stream)).await;
    let events = first.unwrap().unwrap().unwrap().events().unwrap();
    assert!(matches!(events[0].kind, Some(Kind::Started(_))));
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_given_as_bytes() {
    let world = World::new().await;
    let connection = world.cluster.connect().await;
    let database = format!("{}_ascii", world.target.name());
    let create = format!("CREATE DATABASE {database} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0");
    connection.batch_execute(&create).await.unwrap();
    let mut request = world.open_request();
    request.database.clone_from(&database);
    let session = crate::support::name(&world.try_open(request).await.unwrap());
    let run = world.run(session, r"SELECT E'\xff\xfe' AS a, 'plain' AS b").await;
    let Some(Kind::Rows(batch)) = run.kinds().find(|kind| matches!(kind, Kind::Rows(_))) else {
        panic!("{:?}", run.events)
    };
    use rpc::query::v1::value::Kind as ValueKind;
    let values: Vec<_> = batch.rows[0]
        .values
        .iter()
        .map(|value| value.kind.clone().unwrap())
        .collect();
    assert_eq!(values[0], ValueKind::Binary(b"\xff\xfe".as_slice().into()));
    assert_eq!(values[1], ValueKind::Text("plain".into()));
    world.pooler.close_session(&world.token, session).await.unwrap();
    connection
        .batch_execute(&format!("DROP DATABASE {database}"))
        .await
        .unwrap();
}

async fn run_script(world: &World, sql: &str) -> crate::support::Run {
    let request = rpc::pooler::v1::RunScriptRequest {
        server: format!("servers/{}", world.server.id),
        script: Some(split(sql)),
        ..Default::default()
    };
    let stream = world
        .pooler
        .run_script(&world.token, world.server.instance_id, request)
        .await;
    crate::support::Run::read(stream.unwrap()).await
}

#[tokio::test]
async fn script_without_a_session_runs_on_a_backend_of_ours() {
    let world = World::new().await;
    let run = run_script(
        &world,
        "SELECT current_database(); SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    )
    .await;
    assert_eq!(run.rows()[0][0].as_deref(), Some(world.target.name()));
    assert!(
        run.rows()[1][0]
            .as_ref()
            .unwrap()
            .starts_with(&format!("pgmoor/{}/", world.pooler.id()))
    );
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    assert_eq!(world.pooler.session_count(), 0);
}

#[tokio::test]
async fn scripts_share_a_backend_and_leave_nothing_there() {
    let world = World::new().await;
    let pid = "SELECT pg_backend_pid()";
    let first = run_script(
        &world,
        &format!("{pid}; SET work_mem = '7MB'; CREATE TEMP TABLE x (a int)"),
    )
    .await;
    assert_eq!(first.outcome(), ExecutionOutcome::Succeeded);
    let second = run_script(&world, &format!("{pid}; SHOW work_mem; SELECT to_regclass('x')")).await;
    assert_eq!(second.rows()[0], first.rows()[0]);
    assert_eq!(second.rows()[1..], [vec![Some("4MB".to_owned())], vec![None]]);
    // An AUTO session takes it over, and none that a reset does not clean.
    let session = world.open_auto().await;
    assert_eq!(Some(world.value(session, pid).await), first.rows()[0][0]);
    world.pooler.close_session(&world.token, session).await.unwrap();
    for unclean in ["BEGIN", "SET my.tenant = 'a'", "SELECT setseed(0.5)"] {
        let left = run_script(&world, &format!("{pid}; {unclean}")).await;
        let next = run_script(
            &world,
            &format!("{pid}; SELECT current_setting('my.tenant', true)"),
        )
        .await;
        assert_ne!(next.rows()[0], left.rows()[0], "{unclean}");
        assert_eq!(next.rows()[1], [None], "{unclean}");
    }
}
