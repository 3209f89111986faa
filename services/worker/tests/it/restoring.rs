//! What is restored is what was stored, or nothing is written.

use std::process::Command;

use domain::access::{ServerPolicy, Tenancy};
use domain::backup::RestoreRequest;
use domain::id::BackupId;

use crate::world::{World, name};

async fn backed_up(world: &World) -> BackupId {
    world
        .succeeded(world.backup(&["shop"]).await)
        .await
        .backup_id
        .unwrap()
}

fn artifact(world: &World) -> std::path::PathBuf {
    let [artifact] = world.artifact_files().try_into().unwrap();
    artifact
}

#[tokio::test]
async fn truncated_or_altered_artifact_is_refused_before_anything_is_written() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let backup = backed_up(&world).await;
    world
        .owner()
        .await
        .batch_execute("DROP SCHEMA shop CASCADE")
        .await
        .unwrap();
    let path = artifact(&world);
    let content = std::fs::read(&path).unwrap();
    let mut altered = content.clone();
    let last = altered.len() - 100;
    altered[last] ^= 1;
    for broken in [&content[..content.len() / 2], &content[..0], &altered] {
        std::fs::write(&path, broken).unwrap();
        let failure = world.failed(world.restore(backup).await).await;
        assert_eq!(failure.reason, "ARTIFACT_INVALID", "{failure:?}");
        assert!(!world.exists("shop").await);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        world.failed(world.restore(backup).await).await.reason,
        "RESOURCE_NOT_FOUND"
    );
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    world.succeeded(world.restore(backup).await).await;
}

#[tokio::test]
async fn users_file_is_restored_if_it_is_an_archive() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    backed_up(&world).await;
    let before = world.checksum().await;
    let content = std::fs::read(artifact(&world)).unwrap();
    world
        .owner()
        .await
        .batch_execute("DROP SCHEMA shop CASCADE")
        .await
        .unwrap();
    world.upload("foreign", b"#!/bin/sh\necho hello\n".to_vec()).await;
    world.upload("empty", Vec::new()).await;
    world
        .upload("plain.sql", b"CREATE SCHEMA shop;\n\\! touch x\n".to_vec())
        .await;
    world.upload("head", content[..20].to_vec()).await;
    world.upload("contents cut", content[..600].to_vec()).await;
    // The table of contents is whole, the data is not.
    world
        .upload("rows cut", content[..content.len() - 5000].to_vec())
        .await;
    for file in [
        "foreign",
        "empty",
        "plain.sql",
        "head",
        "contents cut",
        "rows cut",
    ] {
        let failure = world.failed(world.restore_file(file).await).await;
        assert_eq!(failure.reason, "ARTIFACT_INVALID", "{file}: {failure:?}");
        assert!(!world.exists("shop").await, "{file}");
    }
    assert_eq!(
        world.failed(world.restore_file("missing").await).await.reason,
        "RESOURCE_NOT_FOUND"
    );

    world.upload("dumps/good", content).await;
    world.succeeded(world.restore_file("dumps/good").await).await;
    assert_eq!(world.checksum().await, before);
}

#[tokio::test]
async fn error_of_the_server_fails_the_restore_with_its_words() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let backup = backed_up(&world).await;
    let id = world.restore(backup).await;
    let failure = world.failed(id).await;
    assert_eq!(
        (failure.reason.as_str(), failure.exit_status),
        ("TOOL_FAILED", Some(1))
    );
    assert!(
        failure.message.contains("schema \"shop\" already exists"),
        "{failure:?}"
    );
    assert!(world.log(id).await.contains("schema \"shop\" already exists"));
    world
        .owner()
        .await
        .batch_execute("DELETE FROM shop.orders WHERE id > 10")
        .await
        .unwrap();
    let clean = RestoreRequest {
        file: None,
        clean: true,
        single_transaction: true,
    };
    world
        .succeeded(world.restore_with(Some(backup), &clean).await)
        .await;
    let rows: i64 = world
        .owner()
        .await
        .query_one("SELECT count(*) FROM shop.orders", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rows, 20_000);
}

#[tokio::test]
async fn archive_larger_than_the_scratch_space_is_refused() {
    let world = World::with_data().await;
    let options = worker::WorkerOptions {
        scratch_bytes: 1000,
        ..world.options()
    };
    let _worker = world.start_with(options).await;
    let backup = backed_up(&world).await;
    assert_eq!(
        world.failed(world.restore(backup).await).await.reason,
        "QUOTA_EXCEEDED"
    );
}

/// What pg_dump makes of a whole database.
async fn dump(world: &World, database: &harness::Database) -> Vec<u8> {
    let file = world.directory.path().join("whole.dump");
    let arguments = [
        "--format=custom".into(),
        format!("--file={}", file.display()),
        database.url(),
    ];
    let status = tokio::task::spawn_blocking(move || {
        Command::new(harness::programs::postgres_program("pg_dump"))
            .args(arguments)
            .status()
    });
    assert!(status.await.unwrap().unwrap().success());
    std::fs::read(file).unwrap()
}

async fn share(world: &World) {
    let databases = std::collections::BTreeSet::from([name(world.target.name())]);
    let policy = ServerPolicy::staging(Tenancy::Multi { databases });
    let servers = world.store.servers();
    servers.set_policy(world.server.id, &policy, None).await.unwrap();
}

#[tokio::test]
async fn server_of_several_tenants_takes_what_lives_in_a_schema_only() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    share(&world).await;
    for (kind, make) in [
        ("PUBLICATION - every", "CREATE PUBLICATION every FOR ALL TABLES"),
        (
            "EVENT TRIGGER - on_ddl",
            "CREATE FUNCTION kept.noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
             CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION kept.noted()",
        ),
        ("EXTENSION - hstore", "CREATE EXTENSION hstore SCHEMA kept"),
        (
            "FOREIGN DATA WRAPPER - wrapper",
            "CREATE FOREIGN DATA WRAPPER wrapper; CREATE SERVER beside FOREIGN DATA WRAPPER wrapper; \
             CREATE USER MAPPING FOR PUBLIC SERVER beside",
        ),
        (
            "CAST - CAST (text AS kept.mood)",
            "CREATE TYPE kept.mood AS ENUM ('good'); CREATE CAST (text AS kept.mood) WITH INOUT AS ASSIGNMENT",
        ),
        ("BLOB", "SELECT lo_create(4711)"),
        (
            "PROCEDURAL LANGUAGE - mine",
            "CREATE LANGUAGE mine HANDLER plpgsql_call_handler",
        ),
    ] {
        let whole = world.cluster.create_database().await;
        whole
            .execute(&format!(
                "CREATE SCHEMA kept; CREATE TABLE kept.t (x int); {make}"
            ))
            .await;
        let file = format!("with {kind}");
        world.upload(&file, dump(&world, &whole).await).await;
        let failure = world.failed(world.restore_file(&file).await).await;
        assert_eq!(
            failure.reason, "RESTORE_ABOVE_SCHEMA_LEVEL",
            "{kind}: {failure:?}"
        );
        assert!(failure.message.contains(kind), "{kind}: {failure:?}");
        assert!(!world.exists("kept").await, "{kind}");
    }
}

#[tokio::test]
async fn server_of_several_tenants_takes_schemas_and_all_that_is_in_them() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    share(&world).await;
    let owner = world.owner().await;
    // What is about the database itself, and rights, are left out of every restore.
    let more = format!(
        "COMMENT ON DATABASE {} IS 'ours'; COMMENT ON SCHEMA shop IS 'ours too'; COMMENT ON TABLE shop.orders IS 'and this'; \
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; GRANT USAGE ON SCHEMA shop TO PUBLIC; \
         GRANT SELECT ON shop.orders TO PUBLIC; CREATE TYPE shop.mood AS ENUM ('good'); \
         CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0); CREATE INDEX ON shop.orders (note); \
         CREATE STATISTICS shop.noted ON id, note FROM shop.orders; CREATE MATERIALIZED VIEW shop.m AS SELECT 1 AS x; \
         CREATE TABLE shop.parted (id int) PARTITION BY LIST (id); \
         CREATE TABLE shop.part PARTITION OF shop.parted FOR VALUES IN (1); \
         CREATE POLICY p ON shop.orders USING (true); CREATE RULE r AS ON DELETE TO shop.part DO INSTEAD NOTHING; \
         CREATE FUNCTION shop.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER noted BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.noted(); \
         CREATE AGGREGATE shop.total(int) (SFUNC = int4pl, STYPE = int); \
         CREATE TEXT SEARCH CONFIGURATION shop.words (COPY = simple); \
         CREATE COLLATION shop.bytes FROM \"C\"",
        world.target.name()
    );
    owner.batch_execute(&more).await.unwrap();
    let before = world.checksum().await;
    let backup = backed_up(&world).await;
    world.upload("whole", dump(&world, &world.target).await).await;
    for is_file in [true, false] {
        let drop = "DROP SCHEMA shop CASCADE; DROP SCHEMA IF EXISTS other CASCADE";
        owner.batch_execute(drop).await.unwrap();
        let restore = match is_file {
            true => world.restore_file("whole").await,
            false => world.restore(backup).await,
        };
        world.succeeded(restore).await;
        assert_eq!(world.checksum().await, before);
    }
}
