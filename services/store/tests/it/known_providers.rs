//! What becomes of what a provider gave that is not configured any more, and of API tokens without a provider's word.

use std::time::Duration;

use domain::id::UserId;
use domain::random::SystemRandom;
use store::identities::{IdentityUser, ProvenIdentity};

use crate::support::{HOUR, World};

async fn log_in(world: &World, provider: &str, subject: &str, administrator: bool) -> UserId {
    let proven = ProvenIdentity {
        provider: provider.to_owned(),
        issuer: format!("https://{provider}.example.com"),
        subject: subject.to_owned(),
        email: None,
        groups: vec![("g".to_owned(), Some("shop".to_owned()))],
        administrator,
        vouched_for: HOUR,
        new_user: Some(IdentityUser {
            id: UserId::generate(&SystemRandom),
            username: subject.parse().unwrap(),
            display_name: subject.parse().unwrap(),
        }),
    };
    world.store.identities().resolve(proven).await.unwrap().user_id
}

async fn memberships(world: &World) -> i64 {
    let connection = world.database.connect().await;
    let sql = "SELECT count(*) FROM pgmoor.group_members WHERE source LIKE 'oidc:%'";
    connection.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn memberships_end_once_no_instance_has_had_their_provider_for_a_while() {
    let world = World::new().await;
    log_in(&world, "old", "ann", false).await;
    log_in(&world, "new", "bob", false).await;
    let known = world.store.known_providers();
    let (both, new) = (["old".to_owned(), "new".to_owned()], ["new".to_owned()]);
    // One instance has the provider still, another one has it no more.
    known.see(&both).await.unwrap();
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    let aged = "UPDATE pgmoor.known_providers SET seen_time = seen_time - interval '2 hours'";
    world.database.execute(aged).await;
    known.see(&both).await.unwrap();
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0, "an instance has it still");
    assert_eq!(memberships(&world).await, 2);

    world.database.execute(aged).await;
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 1);
    assert_eq!(memberships(&world).await, 1);
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
}

#[tokio::test]
async fn provider_that_nobody_ever_said_to_have_is_given_the_same_while() {
    let world = World::new().await;
    log_in(&world, "old", "ann", false).await;
    let known = world.store.known_providers();
    known.see(&[]).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    assert_eq!(known.forget(Duration::ZERO).await.unwrap(), 1);
}

#[tokio::test]
async fn administrators_that_a_provider_made_go_with_it_unless_they_are_the_last() {
    let world = World::new().await;
    let ann = log_in(&world, "old", "ann", true).await;
    let known = world.store.known_providers();
    let a_day_passes = async |configured: &[String]| {
        known.see(configured).await.unwrap();
        let aged = "UPDATE pgmoor.known_providers SET seen_time = seen_time - interval '2 hours'";
        world.database.execute(aged).await;
        known.see(configured).await.unwrap();
        known.forget(HOUR).await.unwrap();
    };
    let is_administrator = async || world.store.users().get(ann).await.unwrap().unwrap().administrator;
    a_day_passes(&[]).await;
    assert!(is_administrator().await, "nobody else is one");
    log_in(&world, "new", "bob", true).await;
    a_day_passes(&["new".to_owned()]).await;
    assert!(!is_administrator().await);
}

#[tokio::test]
async fn refusal_of_a_provider_stops_api_tokens_of_whom_no_other_knows() {
    let world = World::new().await;
    let ann = log_in(&world, "corp", "ann", false).await;
    let vouching = world.store.vouching();
    let expires = async || {
        let user = world.store.users().get(ann).await.unwrap().unwrap();
        user.vouch_expire_time
    };
    let vouched = expires().await.unwrap();
    assert!(!vouching.deny(ann, "other").await.unwrap(), "corp knows her");
    assert!(vouching.deny(ann, "corp").await.unwrap());
    assert!(expires().await.unwrap() < vouched);
    assert!(!vouching.deny(ann, "corp").await.unwrap(), "they have stopped");
    log_in(&world, "corp", "ann", false).await;
    assert!(expires().await.unwrap() >= vouched);

    // With a password she has a way in of her own.
    world.store.users().set_password(ann, &"x".into()).await.unwrap();
    assert_eq!(expires().await, None);
    log_in(&world, "corp", "ann", false).await;
    assert!(!vouching.deny(ann, "corp").await.unwrap());
    assert_eq!(expires().await, None);
}
