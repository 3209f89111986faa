//! Names are names, however they look.

use domain::backup::BackupSelection;
use domain::endpoint::{SslMode, TlsPolicy};
use domain::name::Identifier;
use harness::{Cluster, ClusterOptions, tls};
use target::tools::{Contents, DumpOptions, RestoreOptions, list_arguments, step};

use crate::world::{World, name, run};

const PLAIN: RestoreOptions = RestoreOptions {
    clean: false,
    single_transaction: true,
};

fn dump_of(selection: BackupSelection) -> DumpOptions {
    DumpOptions {
        selection,
        compression: 1,
        large_objects: true,
    }
}

fn schemas(names: &[&str]) -> DumpOptions {
    dump_of(BackupSelection::new(names.iter().map(|text| name(text)).collect(), vec![]).unwrap())
}

#[tokio::test]
async fn databases_with_hostile_names_are_dumped_and_restored() {
    let world = World::new().await;
    let evil = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    evil.set_nonblocking(true).unwrap();
    let port = evil.local_addr().unwrap().port();
    let names = [
        "host=evil".to_owned(),
        format!("host=127.0.0.1 port={port} dbname=x"),
        format!("postgres://127.0.0.1:{port}/x"),
        "--file=x".to_owned(),
        "-f".to_owned(),
        "it's a \\ \"name\": $(touch x);`touch x`".to_owned(),
        "a:b\nc".to_owned(),
        "dbname=x sslmode=disable".to_owned(),
    ];
    for database in names.map(|text| name(&text)) {
        let connection = world.database(&database).await;
        connection
            .batch_execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 42 AS x")
            .await
            .unwrap();
        let dumped = world.dump(&database, &schemas(&["s"])).await;
        assert!(
            dumped.status.success() && dumped.output.starts_with(b"PGDMP"),
            "{database}: {}",
            dumped.log
        );
        connection.batch_execute("DROP SCHEMA s CASCADE").await.unwrap();
        let restored = world.restore(&database, &dumped.output, PLAIN).await;
        assert!(restored.status.success(), "{database}: {}", restored.log);
        let value: i32 = connection
            .query_one("SELECT x FROM s.t", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(value, 42);
    }
    let error = evil.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(
        std::fs::read_dir(world.scratch.path()).unwrap().count(),
        1,
        "only the archive is left"
    );
}

/// The names of the schemas' tables in an archive, by restoring it into an empty database.
async fn tables_in(world: &World, archive: &[u8], into: &str) -> Vec<(String, String)> {
    let into: Identifier = name(into);
    let connection = world.database(&into).await;
    // A dump of single tables has no schemas.
    connection
        .batch_execute("CREATE SCHEMA IF NOT EXISTS \"S.x\"; CREATE SCHEMA IF NOT EXISTS \"s\"")
        .await
        .unwrap();
    let restored = world.restore(&into, archive, PLAIN).await;
    assert!(restored.status.success(), "{}", restored.log);
    let rows = connection
        .query("SELECT schemaname::text, tablename::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2", &[])
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn only_the_named_schema_or_table_is_dumped() {
    let world = World::new().await;
    let database = name("selection");
    let connection = world.database(&database).await;
    let odd = [
        "a*",
        "ab",
        "A*",
        "a.b",
        "a?",
        "q\"q",
        "--table=x",
        "a|b",
        "(x)",
        "[a]",
        "$",
        "x\\y",
        "a b",
    ];
    for schema in ["S.x", "s", "Sax"] {
        let schema = name(schema).quoted();
        connection
            .batch_execute(&format!("CREATE SCHEMA {schema}"))
            .await
            .unwrap();
        for table in odd {
            let table = name(table).quoted();
            connection
                .batch_execute(&format!("CREATE TABLE {schema}.{table} (x int)"))
                .await
                .unwrap();
        }
    }
    for table in odd {
        let selection = BackupSelection::new(vec![], vec![(name("S.x"), name(table))]).unwrap();
        let dumped = world.dump(&database, &dump_of(selection)).await;
        assert!(dumped.status.success(), "{table}: {}", dumped.log);
        let found = tables_in(&world, &dumped.output, "selected").await;
        assert_eq!(found, [("S.x".to_owned(), table.to_owned())]);
    }
    connection.batch_execute("DROP SCHEMA s CASCADE").await.unwrap();
    let dumped = world.dump(&database, &schemas(&["S.x"])).await;
    let into = name("selected");
    let restored_into = world.database(&into).await;
    let restored = world.restore(&into, &dumped.output, PLAIN).await;
    assert!(restored.status.success(), "{}", restored.log);
    let query = "SELECT DISTINCT schemaname::text FROM pg_tables WHERE schemaname ILIKE 's%'";
    let rows = restored_into.query(query, &[]).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(),
        ["S.x"]
    );
}

#[tokio::test]
async fn name_without_a_match_fails_the_dump() {
    let world = World::new().await;
    let database = name("missing");
    world
        .database(&database)
        .await
        .batch_execute("CREATE SCHEMA there")
        .await
        .unwrap();
    let dumped = world.dump(&database, &schemas(&["there", "gone"])).await;
    assert!(!dumped.status.success() && dumped.output.is_empty());
    assert!(dumped.log.contains("gone"), "{}", dumped.log);
}

#[tokio::test]
async fn progress_and_contents_are_read_from_what_programs_print() {
    let world = World::new().await;
    let database = name("progress");
    let connection = world.database(&database).await;
    connection
        .batch_execute("CREATE SCHEMA s; CREATE TABLE s.a (id serial PRIMARY KEY); CREATE TABLE s.b AS SELECT 1 AS x; CREATE VIEW s.v AS SELECT 1")
        .await
        .unwrap();
    let dumped = world.dump(&database, &schemas(&["s"])).await;
    assert_eq!(dumped.log.lines().filter_map(step).count(), 2, "{}", dumped.log);
    let path = world.archive(&dumped.output);
    let process =
        target::tools::ToolProcess::spawn(&world.tool.pg_restore(), &list_arguments(&path), None, None)
            .unwrap();
    let listed = crate::world::finish(process).await;
    let mut contents = Contents::default();
    contents.take(&listed.output);
    contents.end();
    let entries = contents.entries();
    // Schema, two tables, a view, a sequence, its owner, default and value, two tables' rows, a primary key.
    assert_eq!(entries, 11, "{}", String::from_utf8_lossy(&listed.output));
    connection.batch_execute("DROP SCHEMA s CASCADE").await.unwrap();
    let restored = world.restore(&database, &dumped.output, PLAIN).await;
    assert_eq!(
        restored.log.lines().filter_map(step).count() as u64,
        entries,
        "{}",
        restored.log
    );
}

#[tokio::test]
async fn restore_with_clean_replaces_and_without_fails_whole() {
    let world = World::new().await;
    let database = name("cleaning");
    let connection = world.database(&database).await;
    connection
        .batch_execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS x")
        .await
        .unwrap();
    let dumped = world.dump(&database, &schemas(&["s"])).await;
    connection.batch_execute("UPDATE s.t SET x = 2").await.unwrap();
    let refused = world.restore(&database, &dumped.output, PLAIN).await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.log);
    let value = async || {
        connection
            .query_one("SELECT x FROM s.t", &[])
            .await
            .unwrap()
            .get::<_, i32>(0)
    };
    assert_eq!(value().await, 2);
    let replaced = world
        .restore(&database, &dumped.output, RestoreOptions { clean: true, ..PLAIN })
        .await;
    assert!(replaced.status.success(), "{}", replaced.log);
    assert_eq!(value().await, 1);
}

#[tokio::test]
async fn certificate_is_checked_against_the_servers_own_roots() {
    let authority = tls::Authority::new();
    let options = ClusterOptions {
        ssl: Some(authority.server()),
        ..ClusterOptions::default()
    };
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(options).await));
    let verify = |pem: &str| TlsPolicy::new(SslMode::VerifyFull, pem).unwrap();
    let world = World::of(cluster, verify(authority.pem())).await;
    let database = name("encrypted");
    world
        .database(&database)
        .await
        .batch_execute("CREATE SCHEMA s")
        .await
        .unwrap();
    let dumped = world.dump(&database, &schemas(&["s"])).await;
    assert!(dumped.status.success(), "{}", dumped.log);

    let destination =
        crate::world::destination("127.0.0.1", cluster.port(), verify(tls::Authority::new().pem()));
    let policy = crate::world::policy(&["127.0.0.1"], cluster.port());
    let stranger = World {
        resolved: target::resolve(&destination, &policy).await.unwrap(),
        ..world
    };
    let refused = stranger.dump(&database, &schemas(&["s"])).await;
    assert!(
        !refused.status.success() && refused.log.contains("certificate verify failed"),
        "{}",
        refused.log
    );
    let login = crate::world::superuser(cluster);
    let refused = crate::world::target(&stranger.resolved, &login, "x")
        .questions()
        .await;
    assert!(
        matches!(refused, Err(target::ConnectError::Unreachable(_))),
        "{refused:?}"
    );
    let anybody = crate::world::destination(
        "127.0.0.1",
        cluster.port(),
        TlsPolicy::new(SslMode::Require, "").unwrap(),
    );
    let anybody = target::resolve(&anybody, &policy).await.unwrap();
    crate::world::target(&anybody, &login, "x")
        .questions()
        .await
        .unwrap()
        .facts()
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn wrong_password_fails_the_program() {
    let world = World::new().await;
    let environment = world.environment_with(&name("postgres"), "x", "wrong");
    let arguments = schemas(&["public"]).arguments(world.tool.version.major);
    let refused = run(&world.tool.pg_dump(), &arguments, &environment).await;
    assert!(!refused.status.success());
    assert!(
        refused.log.contains("password authentication failed"),
        "{}",
        refused.log
    );
}
