//! COPY in both directions.

use bytes::Bytes;
use futures::StreamExt as _;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::RunScriptRequest;
use rpc::query::v1::copy_in_request::Kind as CopyInKind;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::parameter::Kind as ParameterKind;
use rpc::query::v1::{
    CopyInRequest, CopyInResponse, CopyInStart, ExecutionOutcome, OnError, Parameter, Script,
};
use sessions::Sessions as _;
use tonic::Status;

use crate::support::{DEADLINE, Run, World, one_message, reason, split};

fn start(sql: &str) -> Result<CopyInRequest, Status> {
    let start = CopyInStart {
        sql: sql.to_owned(),
        ..Default::default()
    };
    Ok(CopyInRequest {
        kind: Some(CopyInKind::Start(start)),
    })
}

fn data(data: impl Into<Bytes>) -> Result<CopyInRequest, Status> {
    Ok(CopyInRequest {
        kind: Some(CopyInKind::Data(data.into())),
    })
}

async fn copy_in(
    world: &World,
    session: domain::session::SessionName,
    requests: Vec<Result<CopyInRequest, Status>>,
) -> Result<CopyInResponse, Status> {
    let requests = futures::stream::iter(requests).boxed();
    tokio::time::timeout(DEADLINE, world.pooler.copy_in(&world.token, session, requests))
        .await
        .unwrap()
}

#[tokio::test]
async fn copy_to_stdout_comes_as_events() {
    let world = World::new().await;
    let session = world.open().await;
    let run = world
        .run(
            session,
            "COPY (SELECT a, 'x' FROM generate_series(1, 3) a) TO STDOUT",
        )
        .await;
    let text: Vec<u8> = run
        .kinds()
        .filter_map(|kind| match kind {
            Kind::CopyData(copy) => Some(copy.data.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(String::from_utf8(text).unwrap(), "1\tx\n2\tx\n3\tx\n");
    assert_eq!(run.tags(), ["COPY 3"]);
    let begun = run
        .kinds()
        .any(|kind| matches!(kind, Kind::CopyOutStarted(copy) if copy.column_count == 2));
    assert!(begun);
}

#[tokio::test]
async fn copy_from_stdin_takes_inline_data_in_order() {
    let world = World::new().await;
    let session = world.open().await;
    let sql =
        "CREATE TABLE t (a int); COPY t FROM STDIN; COPY t FROM STDIN (FORMAT csv); SELECT sum(a) FROM t";
    let large: String = (0..200_000).map(|_| "1\n").collect();
    let script = Script {
        copy_input: vec![large.into(), Bytes::from_static(b"40\n2\n")],
        ..split(sql)
    };
    let run = world.execute(session, script).await;
    assert_eq!(run.tags(), ["CREATE TABLE", "COPY 200000", "COPY 2", "SELECT 1"]);
    assert_eq!(run.rows(), [[Some("200042".to_owned())]]);
}

#[tokio::test]
async fn copy_without_data_fails_and_the_session_lives_on() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let script = Script {
        on_error: OnError::Continue.into(),
        ..split("COPY t FROM STDIN; SELECT 1")
    };
    let run = world.execute(session, script).await;
    assert_eq!((run.sqlstates(), run.tags()), (vec!["57014"], vec!["SELECT 1"]));
    let run = world
        .execute(session, one_message("SELECT 1; COPY t FROM STDIN; SELECT 2"))
        .await;
    assert_eq!(
        (run.sqlstates(), run.outcome()),
        (vec!["57014"], ExecutionOutcome::Failed)
    );
    assert_eq!(world.value(session, "SELECT 3").await, "3");
}

#[tokio::test]
async fn wrong_data_is_an_error_in_the_events() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    // Longer than any buffer on the way, and wrong in the first line.
    let input = Bytes::from("x\n".repeat(4_000_000));
    let script = Script {
        copy_input: vec![input],
        ..split("COPY t FROM STDIN; SELECT 1")
    };
    let run = world.execute(session, script).await;
    assert_eq!(run.sqlstates(), ["22P02"]);
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn copy_in_feeds_a_stream() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let piece = Bytes::from("1\n".repeat(100_000));
    let mut requests = vec![start("COPY t FROM STDIN")];
    requests.extend((0..20).map(|_| data(piece.clone())));
    let response = copy_in(&world, session, requests).await.unwrap();
    assert_eq!(
        (response.command_tag.as_str(), response.row_count),
        ("COPY 2000000", 2_000_000)
    );
    assert!(response.error.is_none());
}

#[tokio::test]
async fn copy_in_reports_what_the_server_refuses() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let mut requests = vec![start("COPY t FROM STDIN")];
    requests.extend((0..50).map(|_| data("x\n".repeat(100_000))));
    let response = copy_in(&world, session, requests).await.unwrap();
    assert_eq!(response.error.unwrap().message.unwrap().sqlstate, "22P02");
    let response = copy_in(
        &world,
        session,
        vec![start("COPY nowhere FROM STDIN"), data("1\n")],
    )
    .await
    .unwrap();
    assert_eq!(response.error.unwrap().message.unwrap().sqlstate, "42P01");
    let response = copy_in(
        &world,
        session,
        vec![start("COPY t FROM STDIN"), Err(Status::cancelled("gone"))],
    )
    .await;
    assert_eq!(
        response.unwrap().error.unwrap().message.unwrap().sqlstate,
        "57014"
    );
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn copy_in_takes_one_copy_only() {
    let world = World::new().await;
    let session = world.open().await;
    for requests in [
        vec![],
        vec![data("1\n")],
        vec![start("DELETE FROM t")],
        vec![start("COPY t FROM STDIN\0")],
    ] {
        let refused = copy_in(&world, session, requests).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn second_copy_of_a_statement_gets_no_data() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let requests = vec![start("COPY t FROM STDIN; COPY t FROM STDIN"), data("1\n")];
    let response = copy_in(&world, session, requests).await.unwrap();
    assert_eq!(response.command_tag, "COPY 0");
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn copy_with_parameters_does_not_hold_its_backend_for_ever() {
    let world = World::new().await;
    world.set_budget(1, 0).await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    world.pooler.close_session(&world.token, session).await.unwrap();
    for _ in 0..2 {
        // A type that is given makes even a utility statement take a parameter.
        let parameter = Parameter {
            type_oid: 25,
            kind: Some(ParameterKind::Text("x".to_owned())),
        };
        let script = Script {
            parameters: vec![parameter],
            ..split("COPY t FROM STDIN")
        };
        let request = RunScriptRequest {
            server: format!("servers/{}", world.server.id),
            script: Some(script),
            ..Default::default()
        };
        let instance = world.server.instance_id;
        let stream = world.pooler.run_script(&world.token, instance, request).await;
        let run = Run::read(stream.unwrap()).await;
        assert_eq!(run.outcome(), ExecutionOutcome::Lost);
    }
}
