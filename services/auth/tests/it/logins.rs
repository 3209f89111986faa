//! Passwords in, tokens out.

use std::time::Duration;

use auth::AuthError;
use domain::access::CredentialKind;
use domain::clock::Clock as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::support::{PASSWORD, World};

const WRONG: &str = "wrong horse battery";

#[tokio::test]
async fn login_yields_tokens_that_api_and_pooler_accept() {
    let world = World::new().await;
    let user = world.user("Alice", true).await;
    let pair = world.login("aLICE").await;
    let caller = world.accept(&pair.access_token).await;
    assert_eq!((caller.user, caller.username.as_str()), (user.id, "Alice"));
    assert!(caller.administrator);
    assert_eq!(
        caller.credential,
        CredentialKind::AccessToken { login: pair.login }
    );
    assert_eq!(caller.expires, Some(pair.access_token_expires));
    let life = pair.access_token_expires - world.clock.now();
    assert!((595..=610).contains(&life.whole_seconds()), "{life}");
    let life = pair.refresh_token_expires - world.clock.now();
    assert_eq!(life.whole_hours().div_euclid(24), 14);
}

#[tokio::test]
async fn refused_login_does_not_say_why() {
    let world = World::new().await;
    world.user("alice", false).await;
    let disabled = world.user("carol", false).await;
    world.set_disabled(&disabled, true).await;
    for (name, password) in [
        ("alice", WRONG),
        ("alice", ""),
        ("carol", PASSWORD),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("not a name", PASSWORD),
        ("nul\0", PASSWORD),
        (&"x".repeat(5000), PASSWORD),
        ("alice", &"x".repeat(5000)),
    ] {
        let refused = world.logins.login_with_password(name, &password.into()).await;
        assert_eq!(refused.unwrap_err(), AuthError::LoginFailed, "{name:?}");
    }
}

#[tokio::test]
async fn failed_logins_are_throttled_for_users_and_nobody_alike() {
    let world = World::new().await;
    world.user("alice", false).await;
    for name in ["alice", "nobody", "not a name"] {
        for attempt in 0..10 {
            let name = if attempt % 2 == 0 {
                name.to_owned()
            } else {
                name.to_uppercase()
            };
            let refused = world.logins.login_with_password(&name, &WRONG.into()).await;
            assert_eq!(refused.unwrap_err(), AuthError::LoginFailed, "{name} {attempt}");
        }
        // The right password does not help any more.
        match world
            .logins
            .login_with_password(name, &PASSWORD.into())
            .await
            .unwrap_err()
        {
            AuthError::LoginThrottled { retry_after } => {
                let minutes = retry_after.as_secs() / 60;
                assert!((13..15).contains(&minutes), "{name}: {retry_after:?}");
            }
            other => panic!("{name}: {other}"),
        }
    }
}

#[tokio::test]
async fn login_that_succeeds_clears_the_count() {
    let world = World::new().await;
    world.user("alice", false).await;
    for _ in 0..2 {
        for _ in 0..9 {
            let refused = world.logins.login_with_password("alice", &WRONG.into()).await;
            assert_eq!(refused.unwrap_err(), AuthError::LoginFailed);
        }
        world.login("alice").await;
    }
}

#[tokio::test]
async fn refresh_token_works_once_and_its_reuse_ends_the_login() {
    let world = World::new().await;
    world.user("alice", false).await;
    let first = world.login("alice").await;
    let second = world.logins.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(second.login, first.login);
    assert_ne!(
        second.refresh_token.expose_secret(),
        first.refresh_token.expose_secret()
    );
    world.accept(&second.access_token).await;

    let reused = world.logins.refresh(&first.refresh_token).await;
    assert_eq!(reused.unwrap_err(), AuthError::TokenRevoked);
    let after = world.logins.refresh(&second.refresh_token).await;
    assert_eq!(after.unwrap_err(), AuthError::TokenRevoked);
    world
        .come_to_refuse(&first.access_token, &AuthError::TokenRevoked)
        .await;
    world
        .come_to_refuse(&second.access_token, &AuthError::TokenRevoked)
        .await;
}

#[tokio::test]
async fn reuse_ends_no_other_login_of_the_user() {
    let world = World::new().await;
    world.user("alice", false).await;
    let (phone, laptop) = (world.login("alice").await, world.login("alice").await);
    world.logins.refresh(&phone.refresh_token).await.unwrap();
    world.logins.refresh(&phone.refresh_token).await.unwrap_err();
    world
        .come_to_refuse(&phone.access_token, &AuthError::TokenRevoked)
        .await;
    world.accept(&laptop.access_token).await;
    world.logins.refresh(&laptop.refresh_token).await.unwrap();
}

#[tokio::test]
async fn what_is_no_refresh_token_of_ours_is_invalid() {
    let world = World::new().await;
    world.user("alice", false).await;
    let pair = world.login("alice").await;
    let unknown = SecretString::from(format!("pgmr_{}", "0".repeat(64)));
    for token in [
        &unknown,
        &pair.access_token,
        &SecretString::from(""),
        &SecretString::from("pgmr_"),
    ] {
        assert_eq!(
            world.logins.refresh(token).await.unwrap_err(),
            AuthError::TokenInvalid
        );
    }
}

#[tokio::test]
async fn own_password_is_confirmed_and_guessing_it_is_throttled() {
    let world = World::new().await;
    let user = world.user("alice", false).await;
    assert_eq!(
        world.logins.confirm_password(user.id, &PASSWORD.into()).await,
        Ok(())
    );
    for _ in 0..10 {
        let refused = world.logins.confirm_password(user.id, &WRONG.into()).await;
        assert_eq!(refused, Err(AuthError::LoginFailed));
    }
    let throttled = world
        .logins
        .confirm_password(user.id, &PASSWORD.into())
        .await
        .unwrap_err();
    assert!(matches!(throttled, AuthError::LoginThrottled { retry_after } if retry_after > Duration::ZERO));
    // It keeps nobody from logging in.
    world.login("alice").await;
}
