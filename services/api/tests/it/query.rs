//! What QueryService and CatalogService make of a call before it reaches the pooler, and of its events after.

use domain::id::ServerId;
use domain::random::SystemRandom;
use domain::session::{PoolerId, SessionId, SessionName};
use rpc::catalog::v1::ListTablesRequest;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind as Event;
use rpc::query::v1::value::Kind as Value;
use rpc::query::v1::{
    Column, CopyInRequest, CopyInStart, ExecuteRequest, ExecutionOutcome, FetchMoreRequest,
    GetSessionRequest, ListSessionsRequest, OnError, OnLimit, OpenSessionRequest, ResultColumns,
    ResultFormat, Row, RowBatch, RunQueryRequest, Script, ScriptMode, Session, StatementCompleted,
    copy_in_request,
};
use rpc::server::v1::{CreateServerRequest, Endpoint, Server};
use rpc::settings::v1::setting_value::Kind;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::settings::{setting, update};
use crate::world::{ADMIN, Caller, World, assert_fails};

async fn server_of(caller: &Caller) -> String {
    let server = Server {
        display_name: "db".to_owned(),
        username: "app".to_owned(),
        endpoints: vec![Endpoint {
            host: "db.example.com".to_owned(),
            port: 5432,
        }],
        ..Server::default()
    };
    let request = CreateServerRequest {
        server: Some(server),
        ..Default::default()
    };
    caller
        .servers()
        .create_server(request)
        .await
        .unwrap()
        .into_inner()
        .server
        .unwrap()
        .name
}

fn session_name() -> String {
    let server = ServerId::generate(&SystemRandom);
    SessionName {
        server,
        session: SessionId::generate(PoolerId(1), &SystemRandom),
    }
    .to_string()
}

fn script(sql: &str) -> Script {
    Script {
        sql: sql.to_owned(),
        ..Script::default()
    }
}

fn table() -> Vec<Event> {
    let column = |name: &str, type_oid| Column {
        name: name.to_owned(),
        type_oid,
        ..Column::default()
    };
    let value = |kind| rpc::query::v1::Value { kind: Some(kind) };
    let columns = vec![column("id", 23), column("name", 25)];
    let rows = vec![
        Row {
            values: vec![
                value(Value::Text("1".to_owned())),
                value(Value::Text("a;b".to_owned())),
            ],
        },
        Row {
            values: vec![value(Value::Text("2".to_owned())), value(Value::Null(true))],
        },
    ];
    vec![
        Event::Columns(ResultColumns {
            statement_index: 0,
            columns,
        }),
        Event::Rows(RowBatch { rows }),
        Event::StatementCompleted(StatementCompleted {
            command_tag: "SELECT 2".to_owned(),
            row_count: Some(2),
            ..Default::default()
        }),
    ]
}

#[tokio::test]
async fn settings_decide_what_an_execution_leaves_open() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let chosen = vec![
        setting("query.row_limit", Kind::IntValue(7)),
        setting("query.page_size", Kind::IntValue(3)),
        setting("query.script_mode", Kind::StringValue("ONE_MESSAGE".to_owned())),
        setting("query.on_error", Kind::StringValue("CONTINUE".to_owned())),
        setting(
            "query.statement_timeout",
            Kind::DurationValue(prost_types::Duration { seconds: 9, nanos: 0 }),
        ),
    ];
    update(&admin, "users/me", chosen).await.unwrap();
    world.a.sessions.play(table());
    let request = ExecuteRequest {
        session: session_name(),
        script: Some(script("SELECT 1")),
        ..Default::default()
    };
    let mut events = admin.query().execute(request).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(message) = events.message().await.unwrap() {
        count += message.events().unwrap().len();
    }
    assert_eq!(count, 4);
    let executed = world
        .a
        .sessions
        .executed
        .lock()
        .unwrap()
        .take()
        .unwrap()
        .script
        .unwrap();
    assert_eq!((executed.max_rows, executed.page_size), (Some(7), 3));
    assert_eq!(
        (executed.mode(), executed.on_error()),
        (ScriptMode::OneMessage, OnError::Continue)
    );
    assert_eq!(executed.statement_timeout.unwrap().seconds, 9);
    let token = world.a.sessions.tokens.lock().unwrap().pop();
    assert_eq!(token, admin.token, "the pooler gets the caller's own token");
}

#[tokio::test]
async fn execute_asks_no_database() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let run = || async {
        let request = ExecuteRequest {
            session: session_name(),
            script: Some(script("SELECT 1")),
            ..Default::default()
        };
        world.a.sessions.play(Vec::new());
        admin
            .query()
            .execute(request)
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
    };
    // The first call of a user on an instance reads their layer.
    run().await;
    // Whoever holds these locks stops every statement on settings, users and logins.
    let blocker = world.database.connect().await;
    let locks = "BEGIN; LOCK TABLE pgmoor.settings, pgmoor.settings_layers, pgmoor.counters, pgmoor.users, \
                 pgmoor.logins, pgmoor.revocations, pgmoor.servers IN ACCESS EXCLUSIVE MODE";
    blocker.batch_execute(locks).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(5), async {
        for _ in 0..20 {
            run().await;
        }
    })
    .await
    .expect("no Execute waits for the config database");
    blocker.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn more_of_a_result_comes_as_the_pooler_sends_it() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    world.a.sessions.play(table());
    let request = FetchMoreRequest {
        execution: format!(
            "{}/executions/00000000-0000-4000-8000-000000000000",
            session_name()
        ),
        ..Default::default()
    };
    let mut events = admin
        .query()
        .fetch_more(request.clone())
        .await
        .unwrap()
        .into_inner();
    let mut count = 0;
    while let Some(message) = events.message().await.unwrap() {
        count += message.events().unwrap().len();
    }
    assert_eq!(count, 4);
    let wrong = FetchMoreRequest {
        max_rows: Some(-1),
        max_bytes: Some(-1),
        page_size: -1,
        on_disconnect: 9,
        ..request
    };
    let refused = admin.query().fetch_more(wrong).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["max_rows", "max_bytes", "page_size", "on_disconnect"]);
}

#[tokio::test]
async fn query_without_a_session_cannot_be_suspended() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let request = RunQueryRequest {
        server: server_of(&admin).await,
        script: Some(Script {
            on_limit: OnLimit::Suspend.into(),
            ..script("SELECT 1")
        }),
        ..Default::default()
    };
    let refused = admin.query().run_query(request).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "script.on_limit");
}

#[tokio::test]
async fn csv_is_written_as_the_callers_settings_say() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server_of(&admin).await;
    world.b.sessions.play(table());
    let there = world.b.with_token(admin.token.as_deref().unwrap());
    let run = async || {
        let request = RunQueryRequest {
            server: server.clone(),
            script: Some(script("SELECT")),
            format: ResultFormat::Csv.into(),
            ..Default::default()
        };
        let response = there.query().run_query(request).await.unwrap().into_inner();
        assert_eq!(response.outcome(), ExecutionOutcome::Succeeded);
        response.results[0].csv.clone()
    };
    assert_eq!(run().await, "id,name\r\n1,a;b\r\n2,\r\n");
    // Written through the other instance a moment ago.
    for (name, kind, expected) in [
        (
            "csv.null_text",
            Kind::StringValue("NULL".to_owned()),
            "id,name\r\n1,a;b\r\n2,NULL\r\n",
        ),
        (
            "csv.line_ending",
            Kind::StringValue("LF".to_owned()),
            "id,name\n1,a;b\n2,NULL\n",
        ),
        (
            "csv.delimiter",
            Kind::StringValue("SEMICOLON".to_owned()),
            "id;name\n1;\"a;b\"\n2;NULL\n",
        ),
        (
            "csv.quoting",
            Kind::StringValue("STRINGS".to_owned()),
            "\"id\";\"name\"\n1;\"a;b\"\n2;NULL\n",
        ),
        ("csv.header", Kind::BoolValue(false), "1;\"a;b\"\n2;NULL\n"),
    ] {
        update(&admin, "users/me", vec![setting(name, kind)])
            .await
            .unwrap();
        assert_eq!(run().await, expected, "{name}");
    }
}

#[tokio::test]
async fn session_limits_come_from_the_settings() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server_of(&admin).await;
    let open = async |request| {
        let opened = admin.query().open_session(request).await;
        opened.map(|_| world.a.sessions.opened.lock().unwrap().take().unwrap())
    };
    let request = OpenSessionRequest {
        server,
        ..Default::default()
    };
    let seconds = |duration: Option<prost_types::Duration>| duration.unwrap().seconds;
    let opened = open(request.clone()).await.unwrap();
    assert_eq!(
        (
            seconds(opened.idle_timeout),
            seconds(opened.idle_in_transaction_timeout),
            seconds(opened.queue_timeout)
        ),
        (600, 300, 10)
    );
    let chosen = prost_types::Duration {
        seconds: 77,
        nanos: 0,
    };
    for name in ["session.idle_timeout", "session.idle_in_transaction_timeout"] {
        update(
            &admin,
            "users/me",
            vec![setting(name, Kind::DurationValue(chosen))],
        )
        .await
        .unwrap();
    }
    let opened = open(request.clone()).await.unwrap();
    assert_eq!(
        (
            seconds(opened.idle_timeout),
            seconds(opened.idle_in_transaction_timeout)
        ),
        (77, 77)
    );
    let too_long = prost_types::Duration {
        seconds: 24 * 60 * 60 + 1,
        nanos: 0,
    };
    let too_long = open(OpenSessionRequest {
        idle_timeout: Some(too_long),
        ..request.clone()
    })
    .await;
    assert_fails(too_long, Code::InvalidArgument, ErrorReason::InvalidField);
    let odd = open(OpenSessionRequest {
        database: "x".repeat(64),
        ..request.clone()
    })
    .await;
    assert_fails(odd, Code::InvalidArgument, ErrorReason::InvalidField);
    // A rather odd name of a database, and no more than that.
    let named = open(OpenSessionRequest {
        database: "host=evil".to_owned(),
        ..request
    })
    .await
    .unwrap();
    assert_eq!(named.database, "host=evil");
}

#[tokio::test]
async fn servers_of_others_are_as_good_as_missing_to_sessions() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let theirs = server_of(&admin).await;
    let member = world.member("alice").await;
    let absent = format!("servers/{}", ServerId::generate(&SystemRandom));
    let mut messages = Vec::new();
    for server in [theirs, absent] {
        let request = OpenSessionRequest {
            server,
            ..Default::default()
        };
        let status = assert_fails(
            member.caller.query().open_session(request).await,
            Code::NotFound,
            ErrorReason::ResourceNotFound,
        );
        messages.push(status.message().to_owned());
    }
    assert_eq!(messages[0], messages[1]);
    assert!(world.a.sessions.opened.lock().unwrap().is_none());
}

#[tokio::test]
async fn malformed_session_names_reach_no_pooler() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let good = session_name();
    for name in [
        String::new(),
        "x".repeat(10_000),
        format!("{good}/"),
        good.to_uppercase(),
    ] {
        let malformed = admin.query().get_session(GetSessionRequest { name }).await;
        assert_fails(malformed, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    let missing = admin.query().get_session(GetSessionRequest { name: good }).await;
    assert_fails(missing, Code::NotFound, ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn sessions_are_listed_in_pages() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let mut names: Vec<_> = (0..5).map(|_| session_name()).collect();
    let session = |name: &String| Session {
        name: name.clone(),
        ..Session::default()
    };
    *world.a.sessions.sessions.lock().unwrap() = names.iter().map(session).collect();
    names.sort();
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSessionsRequest {
            parent: "servers/-".to_owned(),
            page_size: 2,
            page_token,
        };
        let page = admin.query().list_sessions(request).await.unwrap().into_inner();
        listed.extend(page.sessions.into_iter().map(|session| session.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, names);
}

#[tokio::test]
async fn copy_is_forwarded_with_its_limit() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let start = CopyInStart {
        session: session_name(),
        sql: "COPY t FROM STDIN".to_owned(),
        statement_timeout: None,
    };
    let kinds = [
        copy_in_request::Kind::Start(start),
        copy_in_request::Kind::Data("1\n".into()),
    ];
    let messages = kinds.map(|kind| CopyInRequest { kind: Some(kind) });
    admin
        .query()
        .copy_in(tokio_stream::iter(messages.clone()))
        .await
        .unwrap();
    let copied = world.a.sessions.copied.lock().unwrap().clone();
    let [
        CopyInRequest {
            kind: Some(copy_in_request::Kind::Start(start)),
        },
        data,
    ] = copied.as_slice()
    else {
        panic!("{copied:?}")
    };
    assert_eq!(
        (start.statement_timeout, data),
        (Some(prost_types::Duration::default()), &messages[1])
    );
    let headless = admin
        .query()
        .copy_in(tokio_stream::iter([messages[1].clone()]))
        .await;
    assert_fails(headless, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn catalog_sends_arguments_beside_the_query() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server_of(&admin).await;
    world.a.sessions.play(Vec::new());
    let schema = "x'; DROP TABLE t; --";
    let request = ListTablesRequest {
        server,
        schema: schema.to_owned(),
        ..Default::default()
    };
    let listed = admin.catalog().list_tables(request).await.unwrap().into_inner();
    assert!(listed.tables.is_empty() && listed.next_page_token.is_empty());
    let ran = world
        .a
        .sessions
        .ran
        .lock()
        .unwrap()
        .take()
        .unwrap()
        .script
        .unwrap();
    assert!(!ran.sql.contains("DROP"));
    assert_eq!(ran.parameters.len(), 3);
}
