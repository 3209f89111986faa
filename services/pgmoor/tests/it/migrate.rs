//! `pgmoor migrate` on a real database.

use harness::Cluster;

use crate::command::pgmoor;

#[tokio::test]
async fn second_migration_finds_nothing_to_do() {
    let database = Cluster::shared().await.create_database().await;
    let url = database.url();
    let environment = [("PGMOOR_CONFIG_DATABASE_URL", url.as_str())];
    let first = pgmoor(&["migrate"], &environment).succeeded();
    assert!(
        first.starts_with("migrated the schema from version 0 to "),
        "{first}"
    );
    let second = pgmoor(&["migrate"], &environment).succeeded();
    assert!(second.ends_with("already\n"), "{second}");
}

#[tokio::test]
async fn database_that_does_not_answer_is_a_failure_without_the_password() {
    let port = harness::free_port();
    let url = format!("postgres://owner:hunter2@127.0.0.1:{port}/pgmoor");
    let error = pgmoor(&["migrate"], &[("PGMOOR_CONFIG_DATABASE_URL", &url)]).failed(1);
    assert!(
        error.contains("127.0.0.1") && !error.contains("hunter2"),
        "{error}"
    );
}
