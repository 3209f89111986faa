//! The feed of revocations.

use std::time::Duration;

use futures::future::join_all;
use store::Store;

use crate::support::{HOUR, World};

/// Follows the feed until `count` revocations were seen, as a verifier does.
async fn follow(store: &Store, count: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    let mut revision = 0;
    while seen.len() < count {
        let batch = store.revocations_since(revision).await.unwrap();
        seen.extend(batch.revocations.iter().map(|entry| entry.revision));
        revision = batch.revision;
        tokio::task::yield_now().await;
    }
    seen
}

#[tokio::test]
async fn follower_misses_nothing_while_many_revoke_at_once() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let mut logins = Vec::new();
    for _ in 0..40 {
        logins.push(world.login(&user).await.0);
    }
    let store = &world.store;
    let revoke = join_all(logins.chunks(10).map(|chunk| async move {
        for login in chunk {
            store.logins().end(*login).await.unwrap();
        }
    }));
    let follow = tokio::time::timeout(crate::support::DEADLINE, follow(store, logins.len()));
    let (_, seen) = tokio::join!(revoke, follow);
    assert_eq!(seen.expect("all were seen"), (1..=40).collect::<Vec<i64>>());
}

#[tokio::test]
async fn old_revocations_are_forgotten() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (login, _) = world.login(&user).await;
    world.store.logins().end(login).await.unwrap();
    assert_eq!(world.store.prune_revocations(HOUR).await.unwrap(), 0);
    assert_eq!(world.store.prune_revocations(Duration::ZERO).await.unwrap(), 1);
    let feed = world.store.revocations_since(0).await.unwrap();
    assert!(feed.revocations.is_empty() && !feed.more);
}
