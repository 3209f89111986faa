//! What is kept of old logins and keys.

use std::sync::Arc;
use std::time::Duration;

use auth::{Upkeep, UpkeepOptions};
use domain::random::SystemRandom;

use crate::support::{PASSWORD, World, logins};

fn upkeep(world: &World, options: UpkeepOptions) -> Upkeep {
    Upkeep::new(world.api_store.clone(), Arc::new(SystemRandom), options, None)
}

#[tokio::test]
async fn key_that_has_signed_for_long_enough_is_replaced_once() {
    let world = World::new().await;
    world.user("alice", false).await;
    let before = world.login("alice").await;
    let keys = async || world.api_store.signing_keys().verifying().await.unwrap();
    upkeep(&world, UpkeepOptions::default()).round().await;
    assert_eq!(keys().await.len(), 1, "it is young");

    let aged = "UPDATE pgmoor.signing_keys SET create_time = create_time - interval '31 days'";
    world.database.execute(aged).await;
    // Two instances that look at the same moment.
    let (one, two) = (
        upkeep(&world, UpkeepOptions::default()),
        upkeep(&world, UpkeepOptions::default()),
    );
    tokio::join!(one.round(), two.round());
    let now = keys().await;
    assert_eq!(now.len(), 2);
    assert!(now[0].retire_time.is_some() && now[1].retire_time.is_none());

    let instance = logins(&world.api_store, &world.passwords).await;
    let after = instance
        .login_with_password("alice", &PASSWORD.into())
        .await
        .unwrap();
    world.accept(&after.access_token).await;
    world.accept(&before.access_token).await;
}

#[tokio::test]
async fn what_has_ended_long_ago_is_forgotten_and_nothing_else() {
    let world = World::new().await;
    world.user("alice", false).await;
    let (ended, open) = (world.login("alice").await, world.login("alice").await);
    world.api_store.logins().end(ended.login).await.unwrap();
    let options = UpkeepOptions {
        keep_logins: Duration::from_secs(86_400),
        ..UpkeepOptions::default()
    };
    let count = async || count_of(&world, "logins").await;
    upkeep(&world, options).round().await;
    assert_eq!(count().await, 2);
    assert_eq!(count_of(&world, "revocations").await, 1);
    for aged in [
        "UPDATE pgmoor.logins SET end_time = end_time - interval '2 days'",
        "UPDATE pgmoor.revocations SET revoke_time = revoke_time - interval '2 days'",
    ] {
        world.database.execute(aged).await;
    }
    upkeep(&world, options).round().await;
    assert_eq!(count().await, 1);
    assert_eq!(count_of(&world, "revocations").await, 0);
    world.accept(&open.access_token).await;
}

async fn count_of(world: &World, table: &str) -> i64 {
    let connection = world.database.connect().await;
    let sql = format!("SELECT count(*) FROM pgmoor.{table}");
    connection.query_one(&sql, &[]).await.unwrap().get(0)
}
