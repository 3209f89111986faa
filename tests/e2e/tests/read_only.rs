//! Read-only access as people meet it: through two API instances, with a role that pgmoor's own SQL made.

use std::process::Output;

use e2e::{Client, World, WorldOptions, reason};
use harness::{Login, eventually, pgmoor_binary};
use rpc::catalog::v1::ListTablesRequest;
use rpc::query::v1::{
    ExecutionOutcome, GetSessionRequest, OpenSessionRequest, RunQueryRequest, Script, SessionAccess,
    SessionMode,
};
use rpc::server::v1::{
    CreateServerRequest, EnforcementLevel, EnforcementReasonCode, InspectServerRequest, Inspection, Server,
};
use tokio::process::Command;

use crate::takeover::{SOON, owner};
use crate::worlds::shared;

/// Runs a command as a user with a token.
pub(crate) async fn pgmoor(world: &World, client: &Client, arguments: &[&str]) -> Output {
    Command::new(pgmoor_binary())
        .args(["--server-url", &world.apis()[0].url()])
        .args(arguments)
        .env_clear()
        .env("PGMOOR_TOKEN", client.token().unwrap())
        .env("HOME", "/nonexistent")
        .output()
        .await
        .unwrap()
}

fn succeeded(output: Output) -> String {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    text(output.stdout)
}

/// Registers the target under another role.
async fn register(world: &World, client: &Client, name: &str, login: &Login) -> String {
    let server = Server {
        display_name: name.to_owned(),
        username: login.user.clone(),
        ..world.target_server()
    };
    let request = CreateServerRequest {
        server: Some(server),
        password: login.password.clone(),
        ..CreateServerRequest::default()
    };
    let response = client.servers().create_server(request).await.unwrap();
    response.into_inner().server.unwrap().name
}

async fn inspect(client: &Client, server: &str) -> Inspection {
    let request = InspectServerRequest {
        name: server.to_owned(),
        ..InspectServerRequest::default()
    };
    let response = client.servers().inspect_server(request).await.unwrap();
    response.into_inner().inspection.unwrap()
}

#[tokio::test]
async fn read_only_session_is_read_only_through_every_instance() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let made = caller.a().open_session(&server).await.unwrap();
    let table = format!("read_only_{}", made.backend_pid);
    caller
        .a()
        .execute(&made.name, &format!("CREATE TABLE {table} (n int)"))
        .await
        .unwrap();
    for mode in [SessionMode::Pinned, SessionMode::Auto] {
        let request = OpenSessionRequest {
            server: server.clone(),
            mode: mode.into(),
            access: SessionAccess::ReadOnly.into(),
            ..OpenSessionRequest::default()
        };
        let session = caller.a().query().open_session(request).await.unwrap();
        let session = session.into_inner().session.unwrap();
        assert_eq!(session.access(), SessionAccess::ReadOnly);
        // Nobody keeps the owner of the database from writing but pgmoor.
        assert_eq!(session.enforcement.unwrap().level(), EnforcementLevel::BestEffort);
        for client in &caller.apis {
            let write = format!("COMMIT; INSERT INTO {table} VALUES (1)");
            let refused = client.execute(&session.name, &write).await.unwrap();
            assert_eq!(refused.sqlstate(), "25006");
            let count = format!("SELECT count(*) FROM {table}");
            assert_eq!(client.execute(&session.name, &count).await.unwrap().value(), "0");
        }
    }
    let request = RunQueryRequest {
        server: server.clone(),
        script: Some(Script {
            sql: format!("INSERT INTO {table} VALUES (1)"),
            ..Script::default()
        }),
        access: SessionAccess::ReadOnly.into(),
        ..RunQueryRequest::default()
    };
    // The catalog is read so too.
    let tables = ListTablesRequest {
        server: server.clone(),
        schema: "public".to_owned(),
        ..ListTablesRequest::default()
    };
    let tables = caller.b().catalog().list_tables(tables).await.unwrap();
    let tables = tables.into_inner().tables;
    assert!(tables.iter().any(|found| found.name == table), "{tables:?}");
    let refused = caller.b().query().run_query(request).await.unwrap().into_inner();
    assert_eq!(refused.outcome(), ExecutionOutcome::Failed);
    let arguments = [
        "sql",
        "-s",
        &server,
        "--read-only",
        "-c",
        &format!("DROP TABLE {table}"),
    ];
    let refused = pgmoor(world, caller.a(), &arguments).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("read-only transaction")
    );
}

#[tokio::test]
async fn role_that_provision_readonly_makes_is_enforced() {
    let world = World::start(WorldOptions {
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let admin = world.superuser().await;
    let client = admin.a();
    let superuser = world.target().cluster().endpoint().superuser();
    world.register_target(client).await;
    let administrator = register(&world, client, "administrator", &superuser).await;
    let database = world.target().database();
    database
        .execute(
            "CREATE TABLE public.t (n int); INSERT INTO public.t VALUES (1); CREATE SEQUENCE public.s; \
             CREATE EXTENSION dblink; GRANT INSERT ON public.t TO PUBLIC; GRANT USAGE ON SEQUENCE public.s TO PUBLIC; \
             CREATE FUNCTION public.d(int) RETURNS int LANGUAGE sql SECURITY DEFINER \
                 AS 'INSERT INTO public.t VALUES (2) RETURNING n'; \
             CREATE SCHEMA \"odd 'schema\"; CREATE TABLE \"odd 'schema\".u (); CREATE ROLE keeper",
        )
        .await;
    for (role, options) in [
        ("reader", &[][..]),
        (
            "odd \"role'\\",
            &["--schema", "odd 'schema", "--schema", "public"][..],
        ),
    ] {
        let mut arguments = vec![
            "servers",
            "provision-readonly",
            &administrator,
            "--role",
            role,
            "--keep-for",
            "keeper",
            "--revoke-functions",
        ];
        arguments.extend(options);
        let printed = succeeded(pgmoor(&world, client, &arguments).await);
        let sql = printed
            .lines()
            .filter(|line| !line.starts_with('\\'))
            .collect::<Vec<_>>()
            .join("\n");
        // Twice: the second time changes nothing.
        for _ in 0..2 {
            database.execute(&sql).await;
        }
        arguments.extend(["--run-as", "administrator"]);
        succeeded(pgmoor(&world, client, &arguments).await);
        let password = "only for this test";
        let quoted = role.replace('"', "\"\"");
        database
            .execute(&format!("ALTER ROLE \"{quoted}\" PASSWORD '{password}'"))
            .await;
        let login = Login {
            user: role.to_owned(),
            password: password.to_owned(),
        };
        let server = register(&world, client, role, &login).await;
        let found = inspect(client, &server).await.read_only.unwrap();
        assert_eq!(found.level(), EnforcementLevel::Enforced, "{found:?}");
        // It reads.
        let session = client.open_session(&server).await.unwrap();
        assert_eq!(
            client
                .execute(&session.name, "SELECT n FROM public.t")
                .await
                .unwrap()
                .value(),
            "1"
        );
        let refused = client
            .execute(&session.name, "INSERT INTO public.t VALUES (2)")
            .await
            .unwrap();
        assert_eq!(refused.sqlstate(), "42501");
        let shown = succeeded(pgmoor(&world, client, &["servers", "inspect", &server]).await);
        assert!(shown.contains("ENFORCED"), "{shown}");
    }
    // Who was named keeps what everybody had.
    let connection = database.connect().await;
    let kept = connection
        .query_one(
            "SELECT has_table_privilege('keeper', 'public.t', 'INSERT') \
             AND has_sequence_privilege('keeper', 'public.s', 'USAGE') \
             AND has_function_privilege('keeper', 'lo_create(oid)', 'EXECUTE') \
             AND has_function_privilege('keeper', 'public.d(int)', 'EXECUTE') \
             AND has_database_privilege('keeper', current_database(), 'TEMPORARY')",
            &[],
        )
        .await
        .unwrap();
    assert!(kept.get::<_, bool>(0));

    // A tenant is enforced once it can connect to nothing else.
    let found = inspect(client, &administrator).await.tenancy.unwrap();
    assert_eq!(found.reasons[0].code(), EnforcementReasonCode::Superuser);
    let server = {
        let login = Login {
            user: "reader".to_owned(),
            password: "only for this test".to_owned(),
        };
        register(&world, client, "tenant", &login).await
    };
    let found = inspect(client, &server).await.tenancy.unwrap();
    let codes: Vec<_> = found.reasons.iter().map(|reason| reason.code()).collect();
    assert!(
        codes.contains(&EnforcementReasonCode::DatabaseConnect),
        "{found:?}"
    );
    database
        .execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
        .await;
    let found = inspect(client, &server).await.tenancy.unwrap();
    assert_eq!(found.level(), EnforcementLevel::Enforced, "{found:?}");

    // A role that may do more is not made less.
    let arguments = [
        "servers",
        "provision-readonly",
        &administrator,
        "--role",
        &superuser.user,
        "--run-as",
        &administrator,
    ];
    let refused = pgmoor(&world, client, &arguments).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("choose another name"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_is_still_read_only_after_its_pooler_was_killed() {
    let mut world = World::start(WorldOptions {
        poolers: 2,
        workers: 0,
        takeover: Some(("3s".to_owned(), "4s".to_owned())),
        ..WorldOptions::default()
    })
    .await;
    let caller = world.create_administrator().await;
    let server = world.register_target(caller.a()).await;
    let request = OpenSessionRequest {
        server,
        mode: SessionMode::Auto.into(),
        access: SessionAccess::ReadOnly.into(),
        ..OpenSessionRequest::default()
    };
    let session = caller.a().query().open_session(request).await.unwrap();
    let name = session.into_inner().session.unwrap().name;
    assert_eq!(caller.a().execute(&name, "SELECT 1").await.unwrap().value(), "1");
    let owner = owner(&world).await.unwrap();
    world.poolers_mut()[owner].kill9().await;
    let refused = eventually(SOON, "another pooler goes on with the session", async || {
        let refused = caller.b().execute(&name, "CREATE TABLE public.written ()").await;
        refused.map_err(|status| reason::text(&status))
    })
    .await;
    assert_eq!(refused.sqlstate(), "25006");
    let request = GetSessionRequest { name };
    let session = caller.b().query().get_session(request).await.unwrap();
    let session = session.into_inner().session.unwrap();
    assert_eq!(
        (session.access(), session.incarnation),
        (SessionAccess::ReadOnly, 2)
    );
}
