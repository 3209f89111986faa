//! What ends a user, a login or a right takes effect on API instances and poolers in the promised time.

use auth::{AuthError, VerifierOptions};
use futures::FutureExt as _;
use harness::eventually;
use secrecy::ExposeSecret as _;
use store::PageRequest;
use store::users::UserChange;

use crate::support::{DEADLINE, FIVE_SECONDS, PASSWORD, World, verifier};

#[tokio::test]
async fn disabled_user_is_refused_everywhere_and_their_tokens_stay_dead() {
    let world = World::new().await;
    let user = world.user("alice", false).await;
    let pair = world.login("alice").await;
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), None, None)
        .await
        .unwrap();
    world.accept(&pair.access_token).await;
    world.accept(&grant.token).await;

    world.set_disabled(&user, true).await;
    world
        .come_to_refuse(&pair.access_token, &AuthError::TokenRevoked)
        .await;
    world.come_to_refuse(&grant.token, &AuthError::TokenRevoked).await;
    let refreshed = world.logins.refresh(&pair.refresh_token).await;
    assert_eq!(refreshed.unwrap_err(), AuthError::TokenRevoked);

    world.set_disabled(&user, false).await;
    let fresh = world.login("alice").await;
    world.accept(&fresh.access_token).await;
    world
        .refuse(pair.access_token.expose_secret(), &AuthError::TokenRevoked)
        .await;
    world
        .refuse(grant.token.expose_secret(), &AuthError::TokenRevoked)
        .await;
}

#[tokio::test]
async fn logout_ends_one_login() {
    let world = World::new().await;
    world.user("alice", false).await;
    let (here, there) = (world.login("alice").await, world.login("alice").await);
    world.accept(&here.access_token).await;
    world.logins.logout(here.login).await.unwrap();
    world.logins.logout(here.login).await.unwrap();
    assert_eq!(
        world.logins.refresh(&here.refresh_token).await.unwrap_err(),
        AuthError::TokenRevoked
    );
    world
        .come_to_refuse(&here.access_token, &AuthError::TokenRevoked)
        .await;
    world.accept(&there.access_token).await;
}

#[tokio::test]
async fn new_password_ends_logins_and_no_api_tokens() {
    let world = World::new().await;
    let user = world.user("alice", false).await;
    let pair = world.login("alice").await;
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), None, None)
        .await
        .unwrap();
    world.accept(&pair.access_token).await;
    let phc = world
        .passwords
        .hash(&"another horse battery".into())
        .await
        .unwrap();
    world.api_store.users().set_password(user.id, &phc).await.unwrap();
    world
        .come_to_refuse(&pair.access_token, &AuthError::TokenRevoked)
        .await;
    world.accept(&grant.token).await;
    let old = world.logins.login_with_password("alice", &PASSWORD.into()).await;
    assert_eq!(old.unwrap_err(), AuthError::LoginFailed);
}

#[tokio::test]
async fn administrator_who_is_one_no_more_is_known_everywhere() {
    let world = World::new().await;
    world.user("root", true).await;
    let user = world.user("alice", true).await;
    let pair = world.login("alice").await;
    assert!(world.accept(&pair.access_token).await.administrator);
    let change = UserChange {
        administrator: Some(false),
        ..UserChange::default()
    };
    world.api_store.users().update(user.id, change).await.unwrap();
    for verifier in [&world.api, &world.pooler] {
        eventually(FIVE_SECONDS, "the demotion is known", async || {
            !verifier
                .verify(pair.access_token.expose_secret())
                .await
                .unwrap()
                .administrator
        })
        .await;
    }
}

#[tokio::test]
async fn open_stream_ends_when_its_user_is_disabled_and_not_when_its_access_token_expires() {
    let world = World::new().await;
    let alice = world.user("alice", false).await;
    world.user("bob", false).await;
    let (of_alice, of_bob) = (world.login("alice").await, world.login("bob").await);
    let alices = world.pooler.watch(&*world.accept(&of_alice.access_token).await);
    let mut bobs = Box::pin(world.pooler.watch(&*world.accept(&of_bob.access_token).await));
    world.clock.advance(time::Duration::hours(1));

    world.set_disabled(&alice, true).await;
    let ended = tokio::time::timeout(FIVE_SECONDS, alices).await.unwrap();
    assert_eq!(ended, AuthError::TokenRevoked);
    assert!(futures::poll!(&mut bobs).is_pending());

    world.logins.logout(of_bob.login).await.unwrap();
    let ended = tokio::time::timeout(FIVE_SECONDS, bobs).await.unwrap();
    assert_eq!(ended, AuthError::TokenRevoked);
}

#[tokio::test]
async fn stream_opened_after_the_revocation_was_heard_ends_at_once() {
    let world = World::new().await;
    let user = world.user("alice", false).await;
    let pair = world.login("alice").await;
    let caller = world.accept(&pair.access_token).await;
    world.set_disabled(&user, true).await;
    world
        .come_to_refuse(&pair.access_token, &AuthError::TokenRevoked)
        .await;
    assert_eq!(
        world.api.watch(&caller).now_or_never(),
        Some(AuthError::TokenRevoked)
    );
}

#[tokio::test]
async fn feed_stops_when_it_is_told_to_and_has_noted_the_use_of_tokens() {
    let mut world = World::new().await;
    let user = world.user("robot", false).await;
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), None, None)
        .await
        .unwrap();
    world.accept(&grant.token).await;
    world.feeds_stop.cancel();
    let ended = async {
        while let Some(ended) = world.feeds.join_next().await {
            ended.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    let listed = world
        .logins
        .list_api_tokens(user.id, &PageRequest::default())
        .await
        .unwrap();
    assert!(listed.items[0].last_use_time.is_some());
}

#[tokio::test]
async fn process_that_starts_after_a_revocation_knows_of_it() {
    let world = World::new().await;
    let user = world.user("alice", false).await;
    let pair = world.login("alice").await;
    world.set_disabled(&user, true).await;
    world.set_disabled(&user, false).await;
    let late = verifier(&world.api_store, &world.clock, VerifierOptions::default()).await;
    let refused = late.verify(pair.access_token.expose_secret()).await;
    assert_eq!(refused.unwrap_err(), AuthError::TokenRevoked);
}
