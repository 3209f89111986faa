//! Finding and following the server that takes writes.

use std::time::{Duration, Instant};

use harness::{Cluster, ClusterOptions, eventually};
use store::users::UserChange;
use store::{ConnectError, ConnectOptions, Store, StoreError, Unavailable, migrate};

use crate::support::{DEADLINE, World, connect, new_user};

/// One URL of several hosts, the superuser's.
fn url(hosts: &[&Cluster], database: &str) -> String {
    let endpoint = hosts[0].endpoint();
    let list: Vec<String> = hosts
        .iter()
        .map(|host| format!("{}:{}", host.endpoint().host, host.endpoint().port))
        .collect();
    format!(
        "postgres://postgres:{}@{}/{database}",
        endpoint.password,
        list.join(",")
    )
}

async fn writes(store: &Store, name: &str) -> Result<(), String> {
    store
        .users()
        .create(new_user(name, false))
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn store_follows_a_promoted_standby() {
    let primary = Cluster::start(ClusterOptions::default()).await;
    let standby = Cluster::standby_of(&primary).await;
    // The standby is named first, and an address where nobody listens is in the list too.
    let url = url(&[&standby, &primary], "postgres").replace("@", "@127.0.0.1:1,");
    migrate::run(&url.clone().into()).await.unwrap();
    let store = connect(&url).await.unwrap();
    writes(&store, "before").await.unwrap();
    standby.catch_up_with(&primary).await;

    primary.stop().await;
    let start = Instant::now();
    let error = store.users().create(new_user("during", false)).await.unwrap_err();
    assert!(error.to_string().contains("not available"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    standby.promote().await;
    eventually(DEADLINE, "a write reaches the new primary", async || {
        writes(&store, "after").await
    })
    .await;
    let names: i64 = standby
        .connect()
        .await
        .query_one("SELECT count(*) FROM pgmoor.users", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(names, 2);

    // The old primary comes back as it was, on the older timeline, and nobody goes back to it.
    primary.start_again().await;
    let late = connect(&url).await.unwrap();
    writes(&late, "late").await.unwrap();
    let names: i64 = standby
        .connect()
        .await
        .query_one("SELECT count(*) FROM pgmoor.users", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(names, 3);
}

#[tokio::test]
async fn connections_to_a_server_that_became_read_only_are_not_used() {
    let primary = Cluster::start(ClusterOptions::default()).await;
    let standby = Cluster::standby_of(&primary).await;
    let url = url(&[&primary, &standby], "postgres");
    migrate::run(&url.clone().into()).await.unwrap();
    let store = connect(&url).await.unwrap();
    let user = store.users().create(new_user("before", false)).await.unwrap();
    standby.catch_up_with(&primary).await;
    // The old primary lives on and answers, but takes no writes: as one that was fenced, or demoted behind
    // its address.
    standby.promote().await;
    primary
        .connect()
        .await
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .unwrap();
    primary
        .connect()
        .await
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    // Backends that are there take notice of the reload a little later, and until then a write.
    let promoted = standby.connect().await;
    let mut attempt = 0;
    eventually(DEADLINE, "a write reaches the new primary", async || {
        attempt += 1;
        let username = format!("after{attempt}");
        writes(&store, &username)
            .await
            .map_err(|error| error.to_string())?;
        let question = "SELECT count(*) FROM pgmoor.users WHERE username = $1";
        let there: i64 = promoted.query_one(question, &[&username]).await.unwrap().get(0);
        if there == 1 {
            Ok(())
        } else {
            Err("the old primary took it".to_owned())
        }
    })
    .await;
    let change = UserChange {
        display_name: Some("Changed".parse().unwrap()),
        ..UserChange::default()
    };
    store.users().update(user.id, change).await.unwrap();
    let changed: i64 = promoted
        .query_one(
            "SELECT count(*) FROM pgmoor.users WHERE display_name = 'Changed'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(changed, 1);
}

#[tokio::test]
async fn killed_connections_are_replaced_unnoticed() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    migrate::run(&cluster.url().into()).await.unwrap();
    let store = connect(&cluster.url()).await.unwrap();
    for round in 0..3 {
        writes(&store, &format!("user{round}")).await.unwrap();
        let ended =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'store tests'";
        cluster.connect().await.batch_execute(ended).await.unwrap();
    }
    writes(&store, "last").await.unwrap();
}

#[tokio::test]
async fn outage_fails_fast_and_ends_with_the_restart() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    migrate::run(&cluster.url().into()).await.unwrap();
    let store = connect(&cluster.url()).await.unwrap();
    cluster.stop().await;
    let start = Instant::now();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    cluster.start_again().await;
    eventually(DEADLINE, "the store answers again", async || store.ping().await).await;
}

#[tokio::test]
async fn standbys_alone_are_not_enough() {
    let primary = Cluster::start(ClusterOptions::default()).await;
    let standby = Cluster::standby_of(&primary).await;
    primary.stop().await;
    let error = connect(&url(&[&primary, &standby], "postgres"))
        .await
        .unwrap_err();
    let ConnectError::Store(StoreError::Unavailable(Unavailable::NoPrimary(reports))) = error else {
        panic!("{error:?}");
    };
    assert!(reports.to_string().contains("a standby"), "{reports}");
}

#[tokio::test]
async fn wrong_password_is_reported_without_it() {
    let cluster = Cluster::shared().await;
    let url = url(&[cluster], "postgres").replace(&cluster.endpoint().password, "hunter2");
    let error = connect(&url).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("authentication failed") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn busy_pool_on_a_full_server_is_waited_for() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (_, login) = world.store_as("pgmoor_api").await;
    let options = ConnectOptions {
        url: world.database.url_as(&login).into(),
        max_connections: 1,
        application_name: "busy".to_owned(),
    };
    let store = Store::connect(&options).await.unwrap();
    store.ping().await.unwrap();
    // The pool's one connection is all its role may have, and it waits for a row that somebody else holds.
    world
        .database
        .execute(&format!("ALTER ROLE {} CONNECTION LIMIT 1", login.user))
        .await;
    let holder = world.database.connect().await;
    holder
        .batch_execute("BEGIN; SELECT FROM pgmoor.users FOR UPDATE")
        .await
        .unwrap();
    let change = UserChange {
        display_name: Some("Changed".parse().unwrap()),
        ..UserChange::default()
    };
    let users = store.users();
    let update = users.update(user.id, change);
    let release = async {
        let blocked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'busy' AND \
            wait_event_type = 'Lock'";
        eventually(DEADLINE, "the update waits", async || {
            holder
                .query_one(blocked, &[])
                .await
                .is_ok_and(|row| row.get::<_, i64>(0) == 1)
        })
        .await;
        // Longer than it takes a waiting caller to doubt the primary.
        holder.batch_execute("SELECT pg_sleep(1.2)").await.unwrap();
        holder.batch_execute("COMMIT").await.unwrap();
    };
    let (updated, pinged, ()) = tokio::join!(update, store.ping(), release);
    updated.unwrap();
    pinged.unwrap();
}
