//! Logins and refresh tokens.

use std::time::Duration;

use domain::id::UserId;
use domain::random::SystemRandom;
use store::logins::{NewLogin, Refresh, StartLoginError};
use store::revocations::Subject;
use store::users::UserChange;

use crate::support::{HOUR, World, hash, new_login};

#[tokio::test]
async fn refresh_token_is_replaced_by_the_next() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (login_id, first) = world.login(&user).await;
    let (second, third) = (hash(), hash());
    for (old, new) in [(first, second), (second, third)] {
        let Refresh::Rotated(login) = world.store.logins().refresh(&old, &new, HOUR).await.unwrap() else {
            panic!("not rotated");
        };
        assert_eq!((login.id, login.user.id), (login_id, user.id));
    }
}

#[tokio::test]
async fn reused_refresh_token_ends_its_login() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (login_id, first) = world.login(&user).await;
    let second = hash();
    let logins = world.store.logins();
    logins.refresh(&first, &second, HOUR).await.unwrap();
    let reused = logins.refresh(&first, &hash(), HOUR).await.unwrap();
    assert_eq!(
        reused,
        Refresh::Reused {
            login_id,
            user_id: user.id
        }
    );
    assert_eq!(
        logins.refresh(&second, &hash(), HOUR).await.unwrap(),
        Refresh::Revoked
    );
    let feed = world.store.revocations_since(0).await.unwrap();
    assert_eq!(feed.revocations.last().unwrap().subject, Subject::Login(login_id));
}

#[tokio::test]
async fn refresh_token_used_twice_at_once_ends_its_login() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (login_id, token) = world.login(&user).await;
    let (one, two) = (hash(), hash());
    let logins = world.store.logins();
    let (first, second) = tokio::join!(
        logins.refresh(&token, &one, HOUR),
        logins.refresh(&token, &two, HOUR)
    );
    let outcomes = [first.unwrap(), second.unwrap()];
    assert!(
        outcomes.contains(&Refresh::Reused {
            login_id,
            user_id: user.id
        }),
        "{outcomes:?}"
    );
    assert!(
        outcomes
            .iter()
            .any(|outcome| matches!(outcome, Refresh::Rotated(_))),
        "{outcomes:?}"
    );
    for hash_of_winner in [one, two] {
        let after = logins.refresh(&hash_of_winner, &hash(), HOUR).await.unwrap();
        assert!(matches!(after, Refresh::Revoked | Refresh::Unknown), "{after:?}");
    }
}

#[tokio::test]
async fn expired_and_unknown_refresh_tokens_are_told_apart() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let token = hash();
    world
        .store
        .logins()
        .start(new_login(user.id, token, Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(
        world.store.logins().refresh(&token, &hash(), HOUR).await.unwrap(),
        Refresh::Expired
    );
    assert_eq!(
        world
            .store
            .logins()
            .refresh(&hash(), &hash(), HOUR)
            .await
            .unwrap(),
        Refresh::Unknown
    );
}

#[tokio::test]
async fn logout_ends_the_login_once() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (login_id, token) = world.login(&user).await;
    world.store.logins().end(login_id).await.unwrap();
    world.store.logins().end(login_id).await.unwrap();
    assert_eq!(
        world.store.logins().refresh(&token, &hash(), HOUR).await.unwrap(),
        Refresh::Revoked
    );
    assert_eq!(
        world.store.revocations_since(0).await.unwrap().revocations.len(),
        1
    );
}

#[tokio::test]
async fn login_is_refused_for_whoever_changed_or_may_not() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let logins = world.store.logins();
    let nobody = logins
        .start(new_login(UserId::generate(&SystemRandom), hash(), HOUR))
        .await
        .unwrap_err();
    assert!(matches!(nobody, StartLoginError::UserNotFound));
    let change = UserChange {
        disabled: Some(true),
        ..UserChange::default()
    };
    world.store.users().update(user.id, change).await.unwrap();
    let disabled = logins.start(new_login(user.id, hash(), HOUR)).await.unwrap_err();
    assert!(matches!(disabled, StartLoginError::UserDisabled));
    let change = UserChange {
        disabled: Some(false),
        ..UserChange::default()
    };
    world.store.users().update(user.id, change).await.unwrap();
    let stale = NewLogin {
        user_etag: Some(user.etag),
        ..new_login(user.id, hash(), HOUR)
    };
    assert!(matches!(
        logins.start(stale).await.unwrap_err(),
        StartLoginError::EtagMismatch
    ));
}

#[tokio::test]
async fn logins_that_ended_are_forgotten_and_others_kept() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (ended, _) = world.login(&user).await;
    let (_, live) = world.login(&user).await;
    world.store.logins().end(ended).await.unwrap();
    assert_eq!(world.store.logins().prune(HOUR).await.unwrap(), 0);
    assert_eq!(world.store.logins().prune(Duration::ZERO).await.unwrap(), 1);
    let outcome = world.store.logins().refresh(&live, &hash(), HOUR).await.unwrap();
    assert!(matches!(outcome, Refresh::Rotated(_)), "{outcome:?}");
}
