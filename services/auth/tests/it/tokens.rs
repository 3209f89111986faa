//! What is accepted as an access token, and for how long.

use std::sync::Arc;

use auth::AuthError;
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer as _, SigningKey};
use futures::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use time::Duration;

use crate::support::World;

fn parts(token: &SecretString) -> [String; 3] {
    let parts: Vec<_> = token.expose_secret().split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

fn encode(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

#[tokio::test]
async fn access_token_is_refused_after_its_end_and_half_a_minute() {
    let world = World::new().await;
    world.user("alice", false).await;
    let pair = world.login("alice").await;
    world.accept(&pair.access_token).await;
    world.clock.advance(Duration::minutes(10));
    world.accept(&pair.access_token).await;
    world.clock.advance(Duration::seconds(45));
    world
        .refuse(pair.access_token.expose_secret(), &AuthError::TokenExpired)
        .await;
    let refused_again = world.pooler.verify(pair.access_token.expose_secret()).await;
    assert_eq!(refused_again.unwrap_err(), AuthError::TokenExpired);
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let world = World::new().await;
    world.user("alice", true).await;
    let pair = world.login("alice").await;
    world.accept(&pair.access_token).await;
    let [header, claims, signature] = parts(&pair.access_token);

    let mut other_user = decode(&claims);
    other_user["sub"] = json!("00000000-0000-4000-8000-000000000000");
    let mut longer = decode(&claims);
    longer["exp"] = json!(longer["exp"].as_i64().unwrap() + 86400);
    let mut unsigned = decode(&header);
    unsigned["alg"] = json!("none");
    let mut symmetric = decode(&header);
    symmetric["alg"] = json!("HS256");
    for forged in [
        format!("{header}.{}.{signature}", encode(&other_user)),
        format!("{header}.{}.{signature}", encode(&longer)),
        format!("{}.{claims}.", encode(&unsigned)),
        format!("{}.{claims}.{signature}", encode(&unsigned)),
        format!("{}.{claims}.{signature}", encode(&symmetric)),
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}.{signature}.{signature}"),
        "x".repeat(10_000),
        format!("{header}.{claims}.{}", "A".repeat(10_000)),
        String::new(),
        pair.refresh_token.expose_secret().to_owned(),
    ] {
        world.refuse(&forged, &AuthError::TokenInvalid).await;
    }
}

#[tokio::test]
async fn token_of_a_foreign_key_is_refused_under_its_own_and_under_our_name() {
    let world = World::new().await;
    world.user("alice", true).await;
    let pair = world.login("alice").await;
    let [header, claims, _] = parts(&pair.access_token);
    let foreign = SigningKey::from_bytes(&[7; 32]);
    let mut named = decode(&header);
    named["kid"] = json!("00000000-0000-4000-8000-000000000000");
    for header in [header, encode(&named)] {
        let signed = format!("{header}.{claims}");
        let signature = BASE64URL_NOPAD.encode(&foreign.sign(signed.as_bytes()).to_bytes());
        world
            .refuse(&format!("{signed}.{signature}"), &AuthError::TokenInvalid)
            .await;
    }
}

#[tokio::test]
async fn too_long_token_is_refused_before_anything_is_computed_or_asked() {
    let world = World::new().await;
    for token in [
        "x".repeat(10_000),
        format!("pgma_{}", "0".repeat(10_000)),
        "a.b.c".repeat(2000),
    ] {
        let refused = world
            .api
            .verify(&token)
            .now_or_never()
            .expect("nothing to wait for");
        assert_eq!(refused.unwrap_err(), AuthError::TokenInvalid);
    }
}

#[tokio::test]
async fn token_that_was_seen_before_needs_no_database() {
    let world = World::new().await;
    world.user("alice", false).await;
    let pair = world.login("alice").await;
    let first = world.accept(&pair.access_token).await;
    let again = world.api.verify(pair.access_token.expose_secret()).now_or_never();
    assert_eq!(again.expect("nothing to wait for"), Ok(Arc::clone(&first)));
}
