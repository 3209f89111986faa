//! The config database is away: who was known stays known, nobody new is believed, and nobody is called a
//! forger.

use auth::AuthError;
use harness::{Cluster, ClusterOptions, eventually};
use secrecy::ExposeSecret as _;
use time::Duration;

use crate::support::{DEADLINE, PASSWORD, World};

#[tokio::test]
async fn outage_of_the_config_database_keeps_the_known_and_admits_nobody_else() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on_own(&cluster).await;
    let alice = world.user("alice", false).await;
    world.user("bob", false).await;
    let (of_alice, of_bob) = (world.login("alice").await, world.login("bob").await);
    let month = std::time::Duration::from_secs(30 * 86400);
    let known = world
        .logins
        .create_api_token(alice.id, "known".parse().unwrap(), Some(month))
        .await
        .unwrap();
    let unseen = world
        .logins
        .create_api_token(alice.id, "unseen".parse().unwrap(), None)
        .await
        .unwrap();
    world.accept(&of_alice.access_token).await;
    world.accept(&known.token).await;
    // Another login of a user that is known: its token was not seen before the outage.
    let later_login = world.login("alice").await;

    cluster.stop().await;

    world.accept(&of_alice.access_token).await;
    world.accept(&later_login.access_token).await;
    world.accept(&known.token).await;
    world
        .refuse(unseen.token.expose_secret(), &AuthError::Unavailable)
        .await;
    world
        .refuse(of_bob.access_token.expose_secret(), &AuthError::Unavailable)
        .await;
    let [header, rest] = {
        let (header, rest) = of_alice.access_token.expose_secret().split_once('.').unwrap();
        [header.to_owned(), rest.to_owned()]
    };
    let header = data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    let mut header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"] = serde_json::json!("00000000-0000-4000-8000-000000000000");
    let header = data_encoding::BASE64URL_NOPAD.encode(header.to_string().as_bytes());
    world
        .refuse(&format!("{header}.{rest}"), &AuthError::Unavailable)
        .await;
    let login = world.logins.login_with_password("alice", &PASSWORD.into()).await;
    assert_eq!(login.unwrap_err(), AuthError::Unavailable);
    let refreshed = world.logins.refresh(&of_alice.refresh_token).await;
    assert_eq!(refreshed.unwrap_err(), AuthError::Unavailable);

    world.clock.advance(Duration::minutes(11));
    world
        .refuse(of_alice.access_token.expose_secret(), &AuthError::TokenExpired)
        .await;
    world.accept(&known.token).await;
    world.clock.advance(Duration::days(31));
    world
        .refuse(known.token.expose_secret(), &AuthError::TokenExpired)
        .await;

    cluster.start_again().await;
    eventually(DEADLINE, "the unseen token is accepted", async || {
        world.pooler.verify(unseen.token.expose_secret()).await.map(drop)
    })
    .await;
}
