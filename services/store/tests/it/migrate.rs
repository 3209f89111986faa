//! Migrations and what programs think of the schema.

use std::time::Duration;

use futures::future::join_all;
use harness::{Cluster, ClusterOptions};
use secrecy::SecretString;
use store::SchemaError;
use store::migrate::{self, MigrateError};

use crate::support::{World, connect};

#[tokio::test]
async fn runs_at_once_in_two_fresh_databases_of_one_cluster_all_succeed() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let databases = [cluster.create_database().await, cluster.create_database().await];
    let urls: Vec<SecretString> = databases
        .iter()
        .flat_map(|database| [database.url(), database.url()])
        .map(SecretString::from)
        .collect();
    let outcomes = join_all(urls.iter().map(migrate::run)).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.from == 0).count(),
        2,
        "{outcomes:?}"
    );
    for database in &databases {
        connect(&database.url())
            .await
            .unwrap()
            .check_schema()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn owner_that_may_not_create_roles_is_told_the_sql() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let database = cluster.create_database().await;
    let owner = cluster.create_login("").await;
    database
        .execute(&format!(
            "ALTER DATABASE {} OWNER TO {}",
            database.name(),
            owner.user
        ))
        .await;
    let url = SecretString::from(database.url_as(&owner));
    let error = migrate::run(&url).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::RolesMissing { roles } if roles.len() == 3),
        "{error:?}"
    );
    database.execute(&error.sql()).await;
    let migrated = migrate::run(&url).await.unwrap();
    let store = connect(&database.url_as(&owner)).await.unwrap();
    store.check_schema().await.unwrap();
    assert_eq!(migrate::run(&url).await.unwrap().from, migrated.to);
}

#[tokio::test]
async fn schema_is_refused_by_cause() {
    let world = World::new().await;
    let check = async || world.store.check_schema().await;
    check().await.unwrap();
    // A later version that this program may use.
    world
        .database
        .execute("INSERT INTO pgmoor.schema_compatibility VALUES (9999, 1)")
        .await;
    check().await.unwrap();
    world
        .database
        .execute("UPDATE pgmoor.schema_compatibility SET min_compatible = 9998 WHERE version = 9999")
        .await;
    let error = check().await.unwrap_err();
    assert!(
        matches!(
            error,
            SchemaError::Incompatible {
                found: 9999,
                min_compatible: 9998,
                ..
            }
        ),
        "{error:?}"
    );
    world
        .database
        .execute("DELETE FROM pgmoor.schema_compatibility WHERE version <> 1")
        .await;
    let error = check().await.unwrap_err();
    assert!(
        matches!(error, SchemaError::SchemaTooOld { found: 1, .. }),
        "{error:?}"
    );
    world.database.execute("DROP SCHEMA pgmoor CASCADE").await;
    assert!(matches!(check().await.unwrap_err(), SchemaError::NotMigrated));
}

#[tokio::test]
async fn migrating_a_schema_of_a_later_version_changes_nothing() {
    let world = World::new().await;
    world
        .database
        .execute(
            "INSERT INTO pgmoor.schema_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'later', true, '', 0); INSERT INTO pgmoor.schema_compatibility VALUES (9999, 1)",
        )
        .await;
    let migrated = migrate::run(&world.database.url().into()).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (9999, 9999));
}

#[tokio::test]
async fn altered_migration_is_refused() {
    let world = World::new().await;
    world
        .database
        .execute("UPDATE pgmoor.schema_migrations SET checksum = 'x' WHERE version = 2")
        .await;
    let error = migrate::run(&world.database.url().into()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Altered { version: 2 }), "{error:?}");
}

#[tokio::test]
async fn every_constraint_has_a_name_of_ours() {
    let world = World::new().await;
    let connection = world.database.connect().await;
    let query = "SELECT c.conname::text, t.relname::text FROM pg_constraint AS c \
                 JOIN pg_class AS t ON t.oid = c.conrelid JOIN pg_namespace AS n ON n.oid = t.relnamespace \
                 WHERE n.nspname = 'pgmoor' AND t.relname <> 'schema_migrations'";
    let rows = connection.query(query, &[]).await.unwrap();
    assert!(rows.len() > 20);
    for row in rows {
        let (constraint, table): (String, String) = (row.get(0), row.get(1));
        let own = constraint.starts_with(&table)
            && !constraint.ends_with("_check")
            && !constraint.ends_with("_fkey");
        assert!(own, "{constraint} of {table}");
    }
}

#[tokio::test]
async fn each_migration_declares_its_compatibility() {
    let world = World::new().await;
    let connection = world.database.connect().await;
    let query = "SELECT coalesce(m.version, c.version) FROM pgmoor.schema_migrations AS m \
                 FULL JOIN pgmoor.schema_compatibility AS c USING (version) \
                 WHERE m.version IS NULL OR c.version IS NULL";
    assert!(connection.query(query, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn unreachable_database_fails_at_once() {
    let port = harness::free_port();
    let start = std::time::Instant::now();
    let error = connect(&format!("postgres://u:hunter2@127.0.0.1:{port}/d"))
        .await
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let text = format!("{error} {error:?}");
    assert!(
        text.contains(&port.to_string()) && !text.contains("hunter2"),
        "{text}"
    );
}
