use std::collections::HashSet;

use tokio_postgres::error::SqlState;

use super::*;
use crate::tls::Authority;

#[tokio::test]
async fn every_database_is_fresh_and_of_its_own() {
    let cluster = Cluster::shared().await;
    let (first, second) = (cluster.create_database().await, cluster.create_database().await);
    first.execute("CREATE TABLE t (id int)").await;
    let tables = second
        .connect()
        .await
        .query("SELECT FROM pg_tables WHERE tablename = 't'", &[])
        .await
        .unwrap();
    assert!(tables.is_empty());
    let names = HashSet::from([first.name(), second.name(), "postgres"]);
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn a_copy_has_the_templates_tables() {
    let cluster = Cluster::shared().await;
    let template = cluster.create_database().await;
    template.execute("CREATE TABLE t AS SELECT 42 AS answer").await;
    let copy = eventually(DEADLINE, "the template's last connection is gone", async || {
        let busy = "SELECT FROM pg_stat_activity WHERE datname = $1";
        cluster
            .connect()
            .await
            .query(busy, &[&template.name()])
            .await
            .unwrap()
            .is_empty()
    });
    copy.await;
    let copy = cluster.copy_database(&template).await;
    let answer: i32 = copy
        .connect()
        .await
        .query_one("SELECT answer FROM t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(answer, 42);
}

#[tokio::test]
async fn a_dropped_database_is_gone_even_with_connections() {
    let cluster = Cluster::shared().await;
    let database = cluster.create_database().await;
    let name = database.name().to_owned();
    let _connection = database.connect().await;
    drop(database);
    eventually(DEADLINE, "the database is dropped", async || {
        let query = "SELECT FROM pg_database WHERE datname = $1";
        cluster
            .connect()
            .await
            .query(query, &[&name])
            .await
            .unwrap()
            .is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let cluster = Cluster::shared().await;
    let login = Login {
        password: "wrong".to_owned(),
        ..cluster.create_login("").await
    };
    let refused = cluster
        .endpoint()
        .try_connect(&login, "postgres")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
}

#[tokio::test]
async fn a_killed_backend_is_gone_and_its_client_told() {
    let cluster = Cluster::shared().await;
    let victim = cluster.connect().await;
    let pid: i32 = victim
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    cluster.kill_backend(pid).await;
    assert!(victim.query_one("SELECT 1", &[]).await.is_err());
}

#[tokio::test]
async fn data_settings_and_port_survive_stop_and_crash() {
    let cluster = Cluster::start(ClusterOptions::default().setting("max_connections", "17")).await;
    let port = cluster.port();
    let connection = cluster.connect().await;
    connection
        .batch_execute("CREATE TABLE t AS SELECT 42 AS answer")
        .await
        .unwrap();
    cluster.restart().await;
    cluster.crash().await;
    assert!(
        cluster
            .endpoint()
            .try_connect(&cluster.endpoint().superuser(), "postgres")
            .await
            .is_err()
    );
    cluster.start_again().await;
    let connection = cluster.connect().await;
    let answer: i32 = connection
        .query_one("SELECT answer FROM t", &[])
        .await
        .unwrap()
        .get(0);
    let limit: String = connection
        .query_one("SHOW max_connections", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!((answer, limit.as_str(), cluster.port()), (42, "17", port));
}

#[tokio::test]
async fn a_standby_follows_refuses_writes_and_can_be_promoted() {
    let primary = Cluster::start(ClusterOptions::default()).await;
    let standby = Cluster::standby_of(&primary).await;
    primary
        .connect()
        .await
        .batch_execute("CREATE TABLE t AS SELECT 42 AS answer")
        .await
        .unwrap();
    standby.catch_up_with(&primary).await;
    let connection = standby.connect().await;
    let refused = connection
        .batch_execute("INSERT INTO t VALUES (43)")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    primary.stop().await;
    standby.promote().await;
    let count: i64 = {
        connection
            .batch_execute("INSERT INTO t VALUES (43)")
            .await
            .unwrap();
        connection
            .query_one("SELECT count(*) FROM t", &[])
            .await
            .unwrap()
            .get(0)
    };
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_cluster_with_a_certificate_serves_tls() {
    let identity = Authority::new().server();
    let cluster = Cluster::start(ClusterOptions {
        ssl: Some(identity),
        ..ClusterOptions::default()
    })
    .await;
    let ssl: String = cluster
        .connect()
        .await
        .query_one("SHOW ssl", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(ssl, "on");
}

#[tokio::test]
#[should_panic(expected = "unrecognized configuration parameter")]
async fn a_cluster_that_does_not_start_fails_with_the_servers_log() {
    Cluster::start(ClusterOptions::default().setting("no_such_setting", "1")).await;
}

#[tokio::test]
async fn a_cluster_dies_with_its_holder_and_leaves_no_directory() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let root = cluster.socket_directory().to_path_buf();
    let server = cluster.server().take().unwrap();
    server.cut_lifeline();
    server.wait_exit(DEADLINE).await;
    eventually(DEADLINE, "the directory is gone", async || !root.exists()).await;
}
