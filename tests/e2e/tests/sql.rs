//! SQL that is wrong, bytes that are odd, databases with odd names.

use bytes::{Buf as _, BufMut as _, Bytes};
use e2e::{Client, World, reason};
use prost_types::Duration;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{
    ExecuteRequest, ExecutionOutcome, OpenSessionRequest, Parameter, RunQueryRequest, RunQueryResponse,
    Script, parameter, value,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::worlds::shared;

async fn run(
    client: &Client,
    server: &str,
    database: &str,
    script: Script,
) -> Result<RunQueryResponse, Status> {
    let request = RunQueryRequest {
        server: server.to_owned(),
        database: database.to_owned(),
        script: Some(script),
        queue_timeout: Some(Duration {
            seconds: 30,
            nanos: 0,
        }),
        ..RunQueryRequest::default()
    };
    Ok(client.query().run_query(request).await?.into_inner())
}

fn script(sql: &str) -> Script {
    Script {
        sql: sql.to_owned(),
        ..Script::default()
    }
}

/// A caller with the target registered.
async fn registered(world: &World) -> (Client, String) {
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    (caller.balanced, server)
}

#[tokio::test]
async fn sql_error_comes_as_an_event_with_sqlstate_and_position_and_the_session_goes_on() {
    let (client, server) = registered(&shared().await.world).await;
    let session = client.open_session(&server).await.unwrap();
    let failed = client
        .execute(&session.name, "SELECT 1;\nSELECT nope")
        .await
        .unwrap();
    assert_eq!(failed.outcome(), ExecutionOutcome::Failed);
    assert_eq!(failed.rows, [[Some("1".to_owned())]]);
    let error = &failed.errors[0];
    let message = error.message.as_ref().unwrap();
    assert_eq!(
        (message.sqlstate.as_str(), message.severity.as_str()),
        ("42703", "ERROR")
    );
    // `nope` is the 8th character of its statement and the 18th of the script.
    assert_eq!((message.position, error.script_position), (8, 18));
    assert_eq!(error.statement_index, 1);
    assert_eq!(
        client.execute(&session.name, "SELECT 2").await.unwrap().value(),
        "2"
    );
    client.close_session(&session).await.unwrap();
}

#[tokio::test]
async fn nul_bytes_are_refused_before_they_reach_a_server() {
    let (client, server) = registered(&shared().await.world).await;
    let session = client.open_session(&server).await.unwrap();
    let in_sql = client.execute(&session.name, "SELECT 'a\0b'").await;
    reason::expect(in_sql.map(drop), Code::InvalidArgument, ErrorReason::InvalidField);

    let request = ExecuteRequest {
        session: session.name.clone(),
        script: Some(Script {
            sql: "SELECT $1::text".to_owned(),
            parameters: vec![Parameter {
                kind: Some(parameter::Kind::Text("a\0b".to_owned())),
                type_oid: 0,
            }],
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let in_parameter = e2e::Running::start(&client, request).await;
    reason::expect(
        in_parameter.map(drop),
        Code::InvalidArgument,
        ErrorReason::InvalidField,
    );

    let request = OpenSessionRequest {
        server: server.clone(),
        database: "post\0gres".to_owned(),
        ..OpenSessionRequest::default()
    };
    let in_database = client.query().open_session(request).await;
    reason::expect(
        in_database.map(drop),
        Code::InvalidArgument,
        ErrorReason::InvalidField,
    );

    let request = OpenSessionRequest {
        server,
        parameters: [("search_path".to_owned(), "a\0user\0postgres".to_owned())].into(),
        ..OpenSessionRequest::default()
    };
    let in_settings = client.query().open_session(request).await;
    reason::expect(
        in_settings.map(drop),
        Code::InvalidArgument,
        ErrorReason::InvalidField,
    );

    assert_eq!(
        client.execute(&session.name, "SELECT 1").await.unwrap().value(),
        "1"
    );
    client.close_session(&session).await.unwrap();
}

/// Sends and receives messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, destination: &mut EncodeBuf<'_>) -> Result<(), Status> {
        destination.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// Calls RunQuery with bytes that need not be a message.
async fn run_raw(client: &Client, message: &[u8]) -> Status {
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.unwrap();
    let mut request = Request::new(Bytes::copy_from_slice(message));
    let token = format!("Bearer {}", client.token().unwrap());
    request
        .metadata_mut()
        .insert("authorization", token.parse().unwrap());
    let path = "/pgmoor.query.v1.QueryService/RunQuery".parse().unwrap();
    let answer = grpc.unary(request, path, Raw).await;
    answer.expect_err("the message is none")
}

#[tokio::test]
async fn messages_that_are_none_fail_the_call_and_nothing_else() {
    let world = &shared().await.world;
    let (client, server) = registered(world).await;
    // Field 3 (script) with field 1 (sql) = "\xff\xfe": a string of protobuf must be UTF-8.
    let not_utf8 = [0x1a, 0x04, 0x0a, 0x02, 0xff, 0xfe];
    // A length beyond the end.
    let cut_off = [0x0a, 0x7f, b'x'];
    for message in [&not_utf8[..], &cut_off] {
        let status = run_raw(&client, message).await;
        assert!(
            matches!(status.code(), Code::InvalidArgument | Code::Internal),
            "{}",
            reason::text(&status)
        );
    }
    let answer = run(&client, &server, "", script("SELECT 1")).await.unwrap();
    assert_eq!(answer.outcome(), ExecutionOutcome::Succeeded);
    assert!(world.apis().iter().all(e2e::RoleProcess::is_running));
}

#[tokio::test]
async fn text_that_is_not_utf8_comes_as_bytes() {
    let world = &shared().await.world;
    let (client, server) = registered(world).await;
    let database = harness::random::name("ascii");
    let create = format!("CREATE DATABASE {database} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    world.target().database().execute(&create).await;
    let sql = r"SELECT convert_from('\xff41fe'::bytea, 'SQL_ASCII') AS odd, 'plain' AS even";
    let answer = run(&client, &server, &database, script(sql)).await.unwrap();
    assert_eq!(answer.outcome(), ExecutionOutcome::Succeeded, "{answer:?}");
    let values = &answer.results[0].rows[0].values;
    assert_eq!(
        values[0].kind,
        Some(value::Kind::Binary(Bytes::from_static(b"\xff\x41\xfe")))
    );
    assert_eq!(values[1].kind, Some(value::Kind::Text("plain".to_owned())));

    // An error whose text is not UTF-8 is told all the same.
    let sql = r"DO $$ BEGIN RAISE EXCEPTION '%', convert_from('\xff'::bytea, 'SQL_ASCII'); END $$";
    let answer = run(&client, &server, &database, script(sql)).await.unwrap();
    let message = answer.errors[0].message.as_ref().unwrap();
    assert_eq!(
        (message.sqlstate.as_str(), message.message.as_str()),
        ("P0001", "\u{fffd}")
    );
    world
        .target()
        .database()
        .execute(&format!("DROP DATABASE {database} WITH (FORCE)"))
        .await;
}

#[tokio::test]
async fn names_of_databases_are_names_and_nothing_else() {
    let world = &shared().await.world;
    let (client, server) = registered(world).await;
    for name in [
        "host=evil",
        "--file=x",
        "postgres://evil/x",
        "a b'c\"d\\e",
        "dbname=postgres",
    ] {
        // As long as there is none, PostgreSQL itself says so.
        let refused = run(&client, &server, name, script("SELECT 1")).await;
        let status = reason::expect(refused, Code::FailedPrecondition, ErrorReason::TargetRefused);
        assert_eq!(
            reason::metadata(&status, "sqlstate").as_deref(),
            Some("3D000"),
            "{name}"
        );

        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        world
            .target()
            .database()
            .execute(&format!("CREATE DATABASE {quoted}"))
            .await;
        let answer = run(&client, &server, name, script("SELECT current_database()"))
            .await
            .unwrap();
        let value = answer.results[0].rows[0].values[0].kind.clone();
        assert_eq!(value, Some(value::Kind::Text(name.to_owned())));
        let drop = format!("DROP DATABASE {quoted} WITH (FORCE)");
        world.target().database().execute(&drop).await;
    }
}
