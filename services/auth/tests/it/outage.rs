//! The config database is away: who was known stays known, an access token says who its user is, nobody else
//! is believed, and nobody is called a forger.

use auth::{AuthError, TokenPair};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer as _, SigningKey};
use harness::{Cluster, ClusterOptions, eventually};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde_json::Value;
use store::signing_keys::{NewSigningKey, PrivateKey, SigningKeyId};
use store::users::UserChange;
use time::Duration;

use crate::support::{DEADLINE, PASSWORD, World, logins};

#[tokio::test]
async fn outage_of_the_config_database_keeps_the_known_and_admits_no_unseen_api_token_or_key() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on_own(&cluster).await;
    let alice = world.user("alice", false).await;
    world.user("bob", false).await;
    let (of_alice, of_bob) = (world.login("alice").await, world.login("bob").await);
    let month = std::time::Duration::from_secs(30 * 86400);
    let known = world
        .logins
        .create_api_token(alice.id, "known".parse().unwrap(), Some(month), None)
        .await
        .unwrap();
    let unseen = world
        .logins
        .create_api_token(alice.id, "unseen".parse().unwrap(), None, None)
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
    world.accept(&of_bob.access_token).await;
    let [header, rest] = {
        let (header, rest) = of_alice.access_token.expose_secret().split_once('.').unwrap();
        [header.to_owned(), rest.to_owned()]
    };
    let header = BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    let mut header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"] = serde_json::json!("00000000-0000-4000-8000-000000000000");
    let header = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
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

#[tokio::test]
async fn access_token_of_a_user_nobody_has_seen_says_who_they_are_until_the_record_can_be_read() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on_own(&cluster).await;
    world.user("root", true).await;
    // The processes started before the first key was made: now they know it.
    world.accept(&world.login("root").await.access_token).await;
    let alice = world.user("alice", true).await;
    let change = |display_name: Option<&str>, administrator| UserChange {
        display_name: display_name.map(|name| name.parse().unwrap()),
        administrator,
        ..UserChange::default()
    };
    let users = world.api_store.users();
    users
        .update(alice.id, change(Some("Alice \"Å\" \\ Smith"), None))
        .await
        .unwrap();
    let pair = world.login("alice").await;
    // After the token was made, and before anybody has read the record.
    users.update(alice.id, change(None, Some(false))).await.unwrap();

    cluster.stop().await;
    let caller = world.accept(&pair.access_token).await;
    assert_eq!(
        (
            caller.user,
            &*caller.username,
            &*caller.display_name,
            caller.administrator
        ),
        (alice.id, "alice", "Alice \"Å\" \\ Smith", true)
    );

    cluster.start_again().await;
    for verifier in [&world.api, &world.pooler] {
        eventually(DEADLINE, "the record rules again", async || {
            !verifier
                .verify(pair.access_token.expose_secret())
                .await
                .unwrap()
                .administrator
        })
        .await;
    }
    // And from now on the record is what is known.
    cluster.stop().await;
    assert!(!world.accept(&pair.access_token).await.administrator);
}

#[tokio::test]
async fn what_was_heard_to_be_revoked_stays_so_whatever_the_token_says() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on_own(&cluster).await;
    let alice = world.user("alice", false).await;
    world.user("bob", false).await;
    let (of_alice, of_bob) = (world.login("alice").await, world.login("bob").await);
    // Enabled again, so that nothing but the revocation speaks against the token.
    world.set_disabled(&alice, true).await;
    world.set_disabled(&alice, false).await;
    world.logins.logout(of_bob.login).await.unwrap();
    for pair in [&of_alice, &of_bob] {
        world
            .come_to_refuse(&pair.access_token, &AuthError::TokenRevoked)
            .await;
    }

    cluster.stop().await;
    for pair in [&of_alice, &of_bob] {
        world
            .refuse(pair.access_token.expose_secret(), &AuthError::TokenRevoked)
            .await;
    }
}

#[tokio::test]
async fn user_who_was_found_to_be_gone_stays_gone() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on_own(&cluster).await;
    world.user("alice", false).await;
    let pair = world.login("alice").await;
    world.database.execute("TRUNCATE pgmoor.users CASCADE").await;
    world
        .refuse(pair.access_token.expose_secret(), &AuthError::TokenRevoked)
        .await;

    cluster.stop().await;
    world
        .refuse(pair.access_token.expose_secret(), &AuthError::TokenRevoked)
        .await;
}

#[tokio::test]
async fn access_token_that_does_not_say_who_its_user_is_waits_for_the_config_database() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let world = World::on_own(&cluster).await;
    world.user("alice", false).await;
    world.user("bob", false).await;
    let secret = SigningKey::from_bytes(&[9; 32]);
    let key = NewSigningKey {
        id: SigningKeyId::from_u128(9),
        private_key: PrivateKey::Clear(SecretBox::new(Box::new(secret.to_bytes()))),
        public_key: secret.verifying_key().to_bytes(),
    };
    let hour = std::time::Duration::from_secs(3600);
    world.api_store.signing_keys().rotate(key, hour).await.unwrap();
    let instance = logins(&world.api_store, &world.passwords).await;
    let log_in = async |name| {
        instance
            .login_with_password(name, &PASSWORD.into())
            .await
            .unwrap()
    };
    let (of_alice, of_bob) = (log_in("alice").await, log_in("bob").await);
    world.accept(&of_alice.access_token).await;
    let old = without_who(&of_bob, &secret);

    cluster.stop().await;
    world.refuse(old.expose_secret(), &AuthError::Unavailable).await;
    world.accept(&of_bob.access_token).await;

    cluster.start_again().await;
    for verifier in [&world.api, &world.pooler] {
        eventually(DEADLINE, "the old token is accepted", async || {
            verifier.verify(old.expose_secret()).await.map(drop)
        })
        .await;
    }
}

/// The access token as versions made it that did not say who the user is.
fn without_who(pair: &TokenPair, key: &SigningKey) -> SecretString {
    let (signed, _) = pair.access_token.expose_secret().rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let mut claims: Value =
        serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    claims.as_object_mut().unwrap().remove("who");
    let signed = format!(
        "{header}.{}",
        BASE64URL_NOPAD.encode(claims.to_string().as_bytes())
    );
    let signature = BASE64URL_NOPAD.encode(&key.sign(signed.as_bytes()).to_bytes());
    SecretString::from(format!("{signed}.{signature}"))
}
