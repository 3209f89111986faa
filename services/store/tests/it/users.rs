//! Users.

use domain::id::UserId;
use domain::random::SystemRandom;
use futures::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use store::logins::Refresh;
use store::users::{CreateUserError, UpdateUserError, UserChange};
use store::{Cursor, Etag, PageRequest, PageSize, StoreError};

use crate::support::{HOUR, World, hash, new_user};

fn disable() -> UserChange {
    UserChange {
        disabled: Some(true),
        ..UserChange::default()
    }
}

#[tokio::test]
async fn username_is_taken_in_any_spelling() {
    let world = World::new().await;
    world.user("Ärzte").await;
    let error = world
        .store
        .users()
        .create(new_user("äRZTE", false))
        .await
        .unwrap_err();
    assert!(matches!(error, CreateUserError::UsernameTaken));
    let found = world
        .store
        .users()
        .find_by_username(&"ÄRZTE".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.user.username.as_str(), "Ärzte");
    assert_eq!(found.password_hash.unwrap().expose_secret(), "$argon2id$test");
}

#[tokio::test]
async fn users_are_read_together_as_they_are_now_and_who_does_not_exist_is_left_out() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    world.user("cid").await;
    let bob = world.store.users().update(bob.id, disable()).await.unwrap();
    let nobody = UserId::generate(&SystemRandom);
    let users = world.store.users();
    let mut read = users.current(&[bob.id, nobody, ann.id, bob.id]).await.unwrap();
    read.sort_by_key(|user| user.username.key());
    assert_eq!(read, [ann, bob]);
    assert_eq!(users.current(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn of_two_updates_with_one_etag_one_wins() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let change = |name: &str| UserChange {
        display_name: Some(name.parse().unwrap()),
        etag: Some(user.etag.clone()),
        ..UserChange::default()
    };
    let users = world.store.users();
    let (one, two) = tokio::join!(
        users.update(user.id, change("one")),
        users.update(user.id, change("two"))
    );
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    let winner = winner.unwrap();
    assert!(matches!(loser.unwrap_err(), UpdateUserError::EtagMismatch));
    assert_eq!(world.store.users().get(user.id).await.unwrap().unwrap(), winner);
    assert_ne!(winner.etag, user.etag);
}

#[tokio::test]
async fn an_etag_that_was_never_given_matches_nothing() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let change = UserChange {
        etag: Some(Etag::new("'; DROP TABLE")),
        ..UserChange::default()
    };
    let error = world.store.users().update(user.id, change).await.unwrap_err();
    assert!(matches!(error, UpdateUserError::EtagMismatch));
}

#[tokio::test]
async fn last_enabled_administrator_is_neither_disabled_nor_demoted() {
    let world = World::new().await;
    let users = world.store.users();
    let first = world.administrator("first").await;
    let second = world.administrator("second").await;
    users.update(second.id, disable()).await.unwrap();
    let demote = UserChange {
        administrator: Some(false),
        ..UserChange::default()
    };
    for change in [disable(), demote.clone()] {
        let error = users.update(first.id, change).await.unwrap_err();
        assert!(matches!(error, UpdateUserError::LastAdministrator));
    }
    // The disabled one may be demoted: it administers nothing.
    users.update(second.id, demote).await.unwrap();
}

#[tokio::test]
async fn administrators_who_disable_each_other_at_once_leave_one() {
    let world = World::new().await;
    let mut all = Vec::new();
    for index in 0..5 {
        all.push(world.administrator(&format!("admin{index}")).await);
    }
    let users = world.store.users();
    let outcomes = join_all(all.iter().map(|admin| users.update(admin.id, disable()))).await;
    let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(
        matches!(refused.as_slice(), [UpdateUserError::LastAdministrator]),
        "{refused:?}"
    );
}

#[tokio::test]
async fn first_user_is_made_once() {
    let world = World::new().await;
    let users = world.store.users();
    let (one, two) = tokio::join!(
        users.create_first(new_user("one", true)),
        users.create_first(new_user("two", true))
    );
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
    let error = one.err().or(two.err()).unwrap();
    assert!(matches!(error, CreateUserError::NotFirst));
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let world = World::new().await;
    for name in ["carol", "Bob", "alice", "dave", "Eve"] {
        world.user(name).await;
    }
    let mut request = PageRequest {
        size: PageSize::new(2),
        after: None,
    };
    let mut names = Vec::new();
    loop {
        let page = world.store.users().list(&request).await.unwrap();
        names.extend(page.items.into_iter().map(|user| user.username.to_string()));
        let Some(next) = page.next else { break };
        request.after = Some(Cursor::new(next.as_str()));
    }
    assert_eq!(names, ["alice", "Bob", "carol", "dave", "Eve"]);
    let wrong = PageRequest {
        after: Some(Cursor::new("{}")),
        ..request
    };
    assert!(matches!(
        world.store.users().list(&wrong).await,
        Err(StoreError::InvalidCursor)
    ));
}

#[tokio::test]
async fn new_password_ends_logins() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (_, token) = world.login(&user).await;
    let changed = world
        .store
        .users()
        .set_password(user.id, &SecretString::from("new"))
        .await
        .unwrap();
    assert_ne!(changed.etag, user.etag);
    assert_eq!(
        world.store.logins().refresh(&token, &hash(), HOUR).await.unwrap(),
        Refresh::Revoked
    );
}

#[tokio::test]
async fn rehashing_does_not_undo_a_new_password() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let users = world.store.users();
    let (old, new) = (SecretString::from("$argon2id$test"), SecretString::from("better"));
    assert!(users.rehash_password(user.id, &old, &new).await.unwrap());
    assert!(!users.rehash_password(user.id, &old, &new).await.unwrap());
    let found = users.get_with_password(user.id).await.unwrap().unwrap();
    assert_eq!(
        (found.user.etag, found.password_hash.unwrap().expose_secret()),
        (user.etag, "better")
    );
}

#[tokio::test]
async fn impossible_row_is_named() {
    let world = World::new().await;
    let user = world.user("ann").await;
    world
        .database
        .execute("UPDATE pgmoor.users SET username = 'two words'")
        .await;
    let error = world.store.users().get(user.id).await.unwrap_err();
    let StoreError::Inconsistent(inconsistency) = error else {
        panic!("{error:?}")
    };
    assert_eq!((inconsistency.table, inconsistency.column), ("users", "username"));
    assert_eq!(inconsistency.row, user.id.to_string());
}
