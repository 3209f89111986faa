//! Users in use are read anew in the background, so that calls need not.

use auth::TokenVerifier;
use domain::id::UserId;
use domain::random::SystemRandom;
use harness::{Cluster, ClusterOptions, eventually};
use secrecy::{ExposeSecret as _, SecretString};
use store::users::NewUser;

use crate::support::{DEADLINE, World};

const USERS: usize = 30;

#[tokio::test]
async fn queries_that_read_users_anew_do_not_grow_with_the_users() {
    let cluster = Cluster::start(ClusterOptions::default().setting("log_statement", "all")).await;
    let world = World::on_own(&cluster).await;
    let mut tokens = Vec::new();
    for number in 0..USERS {
        tokens.push(token_of_a_new_user(&world, number).await);
    }
    for token in &tokens {
        assert_ne!(display_name(&world.pooler, token).await, "changed");
    }
    world
        .database
        .execute("UPDATE pgmoor.users SET display_name = 'changed'")
        .await;

    // Not asked for by a call: nobody calls while this waits.
    eventually(DEADLINE, "somebody is read anew", async || {
        reads_of_users(&cluster) > 0
    })
    .await;
    eventually(DEADLINE, "everybody is known anew", async || {
        for token in &tokens {
            if display_name(&world.pooler, token).await != "changed" {
                return false;
            }
        }
        true
    })
    .await;
    let reads = reads_of_users(&cluster);
    assert!(reads < USERS / 2, "{reads} queries for {USERS} users");
}

async fn token_of_a_new_user(world: &World, number: usize) -> SecretString {
    let name = format!("user{number}");
    let new = NewUser {
        id: UserId::generate(&SystemRandom),
        username: name.parse().unwrap(),
        display_name: name.parse().unwrap(),
        password_hash: None,
        administrator: false,
    };
    let user = world.api_store.users().create(new).await.unwrap();
    let grant = world
        .logins
        .create_api_token(user.id, "ci".parse().unwrap(), None, None);
    grant.await.unwrap().token
}

async fn display_name(verifier: &TokenVerifier, token: &SecretString) -> String {
    let caller = verifier.verify(token.expose_secret()).await.unwrap();
    caller.display_name.clone()
}

/// How many queries for users by their ids the server has run.
fn reads_of_users(cluster: &Cluster) -> usize {
    let log = cluster.log_text();
    log.matches("FROM pgmoor.users WHERE id").count()
}
