//! How often passwords may be tried, and from where.

use auth::{AuthError, TokenPair};
use store::logins::LoginOrigin;

use crate::support::{PASSWORD, World};

const WRONG: &str = "wrong horse battery";

async fn try_from(world: &World, name: &str, password: &str, address: &str) -> Result<TokenPair, AuthError> {
    let origin = LoginOrigin {
        address: Some(address.to_owned()),
        ..LoginOrigin::default()
    };
    let password = password.into();
    world
        .logins
        .login_with_password_from(name, &password, origin)
        .await
}

async fn is_throttled(world: &World, name: &str, address: &str) -> bool {
    let refused = try_from(world, name, WRONG, address).await.unwrap_err();
    matches!(refused, AuthError::LoginThrottled { .. })
}

/// Has a count as if so many attempts had been made.
async fn counted(world: &World, key: &str, attempts: u32) {
    let sql = format!("UPDATE pgmoor.login_throttles SET attempts = {attempts} WHERE key = '{key}'");
    let done = world.database.connect().await.execute(&sql, &[]).await.unwrap();
    assert_eq!(done, 1, "nothing is counted under {key}");
}

#[tokio::test]
async fn addresses_of_one_network_are_throttled_together_and_others_are_not() {
    let world = World::new().await;
    world.user("alice", false).await;
    for host in 1..=10 {
        assert!(!is_throttled(&world, "alice", &format!("2001:db8:0:1::{host:x}")).await);
    }
    assert!(is_throttled(&world, "alice", "2001:db8:0:1:ffff::1").await);
    assert!(!is_throttled(&world, "alice", "2001:db8:0:2::1").await);
    // Alice herself, from elsewhere.
    try_from(&world, "alice", PASSWORD, "192.0.2.1").await.unwrap();
}

#[tokio::test]
async fn guesses_from_everywhere_lock_nobody_out_of_where_they_have_been() {
    let world = World::new().await;
    world.user("alice", false).await;
    try_from(&world, "alice", PASSWORD, "192.0.2.1").await.unwrap();
    assert!(!is_throttled(&world, "alice", "198.51.100.1").await);
    counted(&world, "login-name:alice", 100).await;
    assert!(is_throttled(&world, "alice", "198.51.100.2").await);
    assert!(is_throttled(&world, "ALICE", "198.51.100.3").await);
    try_from(&world, "alice", PASSWORD, "192.0.2.1").await.unwrap();
}

#[tokio::test]
async fn address_that_tries_one_name_after_the_other_is_throttled_and_an_account_of_its_own_does_not_help() {
    let world = World::new().await;
    for name in ["alice", "eve"] {
        world.user(name, false).await;
    }
    let address = "198.51.100.7";
    assert!(!is_throttled(&world, "alice", address).await);
    counted(&world, &format!("login-address:{address}"), 199).await;
    try_from(&world, "eve", PASSWORD, address).await.unwrap();
    assert!(!is_throttled(&world, "nobody", address).await);
    assert!(is_throttled(&world, "somebody", address).await);
    assert!(is_throttled(&world, "alice", address).await);
    assert!(!is_throttled(&world, "somebody", "198.51.100.8").await);
    // Who has been there before goes on, and helps nobody else.
    assert!(!is_throttled(&world, "eve", address).await);
    try_from(&world, "eve", PASSWORD, address).await.unwrap();
    assert!(is_throttled(&world, "alice", address).await);
}

#[tokio::test]
async fn guesses_that_are_refused_for_their_name_do_not_count_for_others_at_the_address() {
    let world = World::new().await;
    world.user("alice", false).await;
    let address = "198.51.100.7";
    for _ in 0..10 {
        assert!(!is_throttled(&world, "nobody", address).await);
    }
    counted(&world, &format!("login-address:{address}"), 199).await;
    for _ in 0..10 {
        assert!(is_throttled(&world, "nobody", address).await);
    }
    try_from(&world, "alice", PASSWORD, address).await.unwrap();
}
