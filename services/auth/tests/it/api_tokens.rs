//! Tokens for automation.

use std::sync::Arc;

use auth::{AuthError, VerifierOptions};
use domain::access::CredentialKind;
use secrecy::ExposeSecret as _;
use store::PageRequest;

use crate::support::{DEADLINE, World, verifier};

#[tokio::test]
async fn api_token_stands_for_its_owner_until_it_is_revoked() {
    let world = World::new().await;
    let user = world.user("robot", false).await;
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), None, None)
        .await
        .unwrap();
    assert!(grant.token.expose_secret().starts_with("pgma_"));
    let caller = world.accept(&grant.token).await;
    assert_eq!((caller.user, caller.expires), (user.id, None));
    assert_eq!(
        caller.credential,
        CredentialKind::ApiToken {
            id: grant.api_token.id
        }
    );
    let listed = world
        .logins
        .list_api_tokens(user.id, &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&grant.api_token));

    assert_eq!(
        world.logins.revoke_api_token(user.id, grant.api_token.id).await,
        Ok(true)
    );
    world.come_to_refuse(&grant.token, &AuthError::TokenRevoked).await;
    let late = verifier(&world.api_store, &world.clock, VerifierOptions::default()).await;
    let refused = late.verify(grant.token.expose_secret()).await;
    assert_eq!(refused.unwrap_err(), AuthError::TokenRevoked);
}

#[tokio::test]
async fn token_of_another_user_cannot_be_revoked() {
    let world = World::new().await;
    let (owner, other) = (
        world.user("robot", false).await,
        world.user("mallory", true).await,
    );
    let grant = world
        .logins
        .create_api_token(owner.id, "ci".parse().unwrap(), None, None)
        .await
        .unwrap();
    assert_eq!(
        world.logins.revoke_api_token(other.id, grant.api_token.id).await,
        Ok(false)
    );
    world.accept(&grant.token).await;
}

#[tokio::test]
async fn api_token_expires() {
    let world = World::new().await;
    let user = world.user("robot", false).await;
    let minute = std::time::Duration::from_secs(60);
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), Some(minute), None)
        .await
        .unwrap();
    world.accept(&grant.token).await;
    world.clock.advance(time::Duration::seconds(65));
    world
        .refuse(grant.token.expose_secret(), &AuthError::TokenExpired)
        .await;
}

#[tokio::test]
async fn unknown_api_token_is_invalid() {
    let world = World::new().await;
    for digit in ["0", "f"] {
        let token = format!("pgma_{}", digit.repeat(64));
        world.refuse(&token, &AuthError::TokenInvalid).await;
        world.refuse(&token, &AuthError::TokenInvalid).await;
    }
}

#[tokio::test]
async fn open_stream_ends_with_its_api_token() {
    let world = World::new().await;
    let user = world.user("robot", false).await;
    let minute = std::time::Duration::from_secs(60);
    let expiring = world
        .logins
        .create_api_token(user.id, "a".parse().unwrap(), Some(minute), None)
        .await
        .unwrap();
    let revoked = world
        .logins
        .create_api_token(user.id, "b".parse().unwrap(), None, None)
        .await
        .unwrap();
    let mut expiring = Box::pin(world.pooler.watch(&*world.accept(&expiring.token).await));
    let mut watched = Box::pin(world.pooler.watch(&*world.accept(&revoked.token).await));
    assert!(futures::poll!(&mut expiring).is_pending());
    assert!(futures::poll!(&mut watched).is_pending());

    world.clock.advance(time::Duration::seconds(65));
    let ended = tokio::time::timeout(DEADLINE, expiring).await.unwrap();
    assert_eq!(ended, AuthError::TokenExpired);

    assert!(futures::poll!(&mut watched).is_pending());
    world
        .logins
        .revoke_api_token(user.id, revoked.api_token.id)
        .await
        .unwrap();
    let ended = tokio::time::timeout(DEADLINE, watched).await.unwrap();
    assert_eq!(ended, AuthError::TokenRevoked);
}

#[tokio::test]
async fn flood_of_unknown_tokens_does_not_push_a_good_one_out() {
    let world = World::new().await;
    let user = world.user("robot", false).await;
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), None, None)
        .await
        .unwrap();
    let small = VerifierOptions {
        capacity: 2,
        ..VerifierOptions::default()
    };
    let forgetful = verifier(&world.api_store, &world.clock, small).await;
    for number in 0..20 {
        let other = format!("pgma_{number:064x}");
        assert_eq!(
            forgetful.verify(&other).await.unwrap_err(),
            AuthError::TokenInvalid
        );
        let caller = forgetful.verify(grant.token.expose_secret()).await.unwrap();
        assert_eq!(Arc::clone(&caller), world.accept(&grant.token).await);
    }
}
