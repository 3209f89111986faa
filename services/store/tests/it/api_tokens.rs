//! Tokens for automation.

use std::time::Duration;

use domain::id::{ApiTokenId, UserId};
use domain::random::SystemRandom;
use store::api_tokens::{ApiToken, CreateApiTokenError, FoundApiToken, NewApiToken, RevokeApiTokenError};
use store::logins::TokenHash;
use store::revocations::Subject;
use store::users::UserChange;
use store::{PageRequest, PageSize};

use crate::support::{World, hash};

fn new_token(user_id: UserId, lifetime: Option<Duration>) -> NewApiToken {
    NewApiToken {
        id: ApiTokenId::generate(&SystemRandom),
        user_id,
        hash: hash(),
        display_name: "ci".parse().unwrap(),
        lifetime,
        not_after: None,
    }
}

async fn create(world: &World, user_id: UserId, lifetime: Option<Duration>) -> (ApiToken, TokenHash) {
    let new = new_token(user_id, lifetime);
    let hash = new.hash;
    (world.store.api_tokens().create(new).await.unwrap(), hash)
}

#[tokio::test]
async fn token_is_valid_until_it_is_revoked() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (token, hash) = create(&world, user.id, None).await;
    let tokens = world.store.api_tokens();
    let found = tokens.find(&hash).await.unwrap().unwrap();
    assert_eq!(
        found,
        FoundApiToken::Valid {
            token: token.clone(),
            user: user.clone()
        }
    );
    tokens.revoke(user.id, token.id).await.unwrap();
    tokens.revoke(user.id, token.id).await.unwrap();
    assert_eq!(tokens.find(&hash).await.unwrap(), Some(FoundApiToken::Revoked));
    let feed = world.store.revocations_since(0).await.unwrap().revocations;
    assert_eq!(
        feed.iter().map(|entry| entry.subject).collect::<Vec<_>>(),
        [Subject::ApiToken(token.id)]
    );
}

#[tokio::test]
async fn expired_and_unknown_tokens_are_told_apart() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (_, expired) = create(&world, user.id, Some(Duration::ZERO)).await;
    assert_eq!(
        world.store.api_tokens().find(&expired).await.unwrap(),
        Some(FoundApiToken::Expired)
    );
    assert_eq!(world.store.api_tokens().find(&hash()).await.unwrap(), None);
}

#[tokio::test]
async fn nobody_revokes_anothers_token() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (token, hash) = create(&world, ann.id, None).await;
    let error = world
        .store
        .api_tokens()
        .revoke(bob.id, token.id)
        .await
        .unwrap_err();
    assert!(matches!(error, RevokeApiTokenError::NotFound));
    assert!(matches!(
        world.store.api_tokens().find(&hash).await.unwrap(),
        Some(FoundApiToken::Valid { .. })
    ));
}

#[tokio::test]
async fn disabling_a_user_revokes_their_tokens_for_good() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (_, hash) = create(&world, user.id, None).await;
    for disabled in [true, false] {
        let change = UserChange {
            disabled: Some(disabled),
            ..UserChange::default()
        };
        world.store.users().update(user.id, change).await.unwrap();
        assert_eq!(
            world.store.api_tokens().find(&hash).await.unwrap(),
            Some(FoundApiToken::Revoked)
        );
    }
    let feed = world.store.revocations_since(0).await.unwrap().revocations;
    assert_eq!(
        feed.iter().map(|entry| entry.subject).collect::<Vec<_>>(),
        [Subject::User(user.id)]
    );
}

#[tokio::test]
async fn last_use_is_noted_to_the_minute() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (token, _) = create(&world, user.id, None).await;
    let tokens = world.store.api_tokens();
    tokens.touch(token.id).await.unwrap();
    tokens.touch(token.id).await.unwrap();
    let listed = tokens.list(user.id, &PageRequest::default()).await.unwrap().items;
    let noted = listed.first().unwrap().last_use_time.unwrap();
    assert_eq!((noted.second(), noted.microsecond()), (0, 0));
}

#[tokio::test]
async fn tokens_are_listed_newest_first_without_revoked_ones() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(create(&world, user.id, None).await.0.id);
    }
    let tokens = world.store.api_tokens();
    tokens.revoke(user.id, made.remove(2)).await.unwrap();
    made.reverse();
    let mut request = PageRequest {
        size: PageSize::new(3),
        after: None,
    };
    let first = tokens.list(user.id, &request).await.unwrap();
    request.after = first.next.clone();
    let second = tokens.list(user.id, &request).await.unwrap();
    assert_eq!((first.items.len(), second.items.len(), second.next), (3, 1, None));
    let listed: Vec<_> = first
        .items
        .iter()
        .chain(&second.items)
        .map(|token| token.id)
        .collect();
    assert_eq!(listed, made);
}

#[tokio::test]
async fn token_needs_a_user() {
    let world = World::new().await;
    let new = new_token(UserId::generate(&SystemRandom), None);
    let error = world.store.api_tokens().create(new).await.unwrap_err();
    assert!(matches!(error, CreateApiTokenError::UserNotFound));
}
