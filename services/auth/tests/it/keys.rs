//! The keys that sign: shared by all API instances, replaced without anybody noticing.

use std::sync::Arc;
use std::time::Duration;

use auth::{
    LoginKey, LoginKeyRing, LoginKeys, LoginsOptions, ResealError, ResealedLogins, StartError, UnusableKey,
    Upkeep, UpkeepOptions, VerifierOptions,
};
use domain::random::SystemRandom;
use secrecy::{ExposeSecret as _, SecretBox};
use store::signing_keys::{NewSigningKey, PrivateKey, SigningKeyId};

use crate::support::{PASSWORD, World, logins, logins_with, verifier};

#[tokio::test]
async fn api_instances_that_start_together_sign_with_one_key() {
    let world = World::new().await;
    world.user("alice", false).await;
    let (one, two) = tokio::join!(
        logins(&world.api_store, &world.passwords),
        logins(&world.api_store, &world.passwords)
    );
    for instance in [one, two] {
        let pair = instance
            .login_with_password("alice", &PASSWORD.into())
            .await
            .unwrap();
        world.accept(&pair.access_token).await;
    }
    assert_eq!(world.api_store.signing_keys().verifying().await.unwrap().len(), 1);
}

#[tokio::test]
async fn key_that_was_made_after_the_verifiers_started_is_found() {
    let world = World::new().await;
    world.user("alice", false).await;
    let before = world.login("alice").await;
    world.accept(&before.access_token).await;

    let secret = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let new = NewSigningKey {
        id: SigningKeyId::from_u128(9),
        private_key: PrivateKey::Clear(SecretBox::new(Box::new(secret.to_bytes()))),
        public_key: secret.verifying_key().to_bytes(),
    };
    world
        .api_store
        .signing_keys()
        .rotate(new, Duration::from_secs(3600))
        .await
        .unwrap();
    let instance = logins(&world.api_store, &world.passwords).await;
    let after = instance
        .login_with_password("alice", &PASSWORD.into())
        .await
        .unwrap();
    world.accept(&after.access_token).await;
    world.accept(&before.access_token).await;
}

#[tokio::test]
async fn key_pair_that_does_not_belong_together_is_not_used() {
    let world = World::new().await;
    let new = NewSigningKey {
        id: SigningKeyId::from_u128(9),
        private_key: PrivateKey::Clear(SecretBox::new(Box::new([9; 32]))),
        public_key: [9; 32],
    };
    world
        .api_store
        .signing_keys()
        .rotate(new, Duration::from_secs(3600))
        .await
        .unwrap();
    let (store, passwords) = (world.api_store.clone(), world.passwords.clone());
    let started = auth::Logins::start(
        store,
        Arc::new(SystemRandom),
        passwords,
        LoginsOptions::default(),
        None,
    )
    .await;
    assert!(matches!(started, Err(StartError::Key(_))));
    verifier(&world.api_store, &world.clock, VerifierOptions::default()).await;
}

#[tokio::test]
async fn access_tokens_that_outlive_the_memory_of_revocations_are_refused_at_start() {
    let world = World::new().await;
    for seconds in [0, 3601] {
        let (store, passwords) = (world.api_store.clone(), world.passwords.clone());
        let lifetime = Duration::from_secs(seconds);
        let options = LoginsOptions {
            access_token_lifetime: lifetime,
            ..LoginsOptions::default()
        };
        let started = auth::Logins::start(store, Arc::new(SystemRandom), passwords, options, None).await;
        assert!(matches!(started, Err(StartError::Lifetime { .. })));
    }
}

#[tokio::test]
async fn key_of_a_version_that_did_not_seal_signs_until_it_is_replaced_by_one_that_rests_sealed() {
    let world = World::new().await;
    world.user("alice", false).await;
    let is_sealed = async || {
        let current = world.api_store.signing_keys().current().await.unwrap();
        current.unwrap().private_key.is_sealed()
    };
    // Made without a login key.
    logins(&world.api_store, &world.passwords).await;
    assert!(!is_sealed().await);
    let key = LoginKeyRing::from(LoginKey::generate(&SystemRandom));
    let log_in = async |key: &LoginKeyRing| {
        let instance = logins_with(&world.api_store, &world.passwords, Some(key.clone())).await;
        let pair = instance
            .unwrap()
            .login_with_password("alice", &PASSWORD.into())
            .await;
        world.accept(&pair.unwrap().access_token).await;
    };
    log_in(&key).await;
    assert!(!is_sealed().await, "it was replaced before its time");

    let aged = "UPDATE pgmoor.signing_keys SET create_time = create_time - interval '31 days'";
    world.database.execute(aged).await;
    let options = UpkeepOptions::default();
    let upkeep = Upkeep::new(
        world.api_store.clone(),
        Arc::new(SystemRandom),
        options,
        Some(key.clone()),
    );
    upkeep.round().await;
    assert!(is_sealed().await);
    log_in(&key).await;
    // An instance with another login key, or none, does not begin to serve.
    for other in [None, Some(LoginKey::generate(&SystemRandom).into())] {
        let started = logins_with(&world.api_store, &world.passwords, other).await;
        assert!(matches!(
            started,
            Err(StartError::Key(UnusableKey::Sealed { .. }))
        ));
    }
    // The login key is lost: another signing key is made with another one.
    let new = LoginKeyRing::from(LoginKey::generate(&SystemRandom));
    auth::replace_signing_key(&world.api_store, &SystemRandom, Some(&new))
        .await
        .unwrap();
    log_in(&new).await;
}

#[tokio::test]
async fn upkeep_without_the_login_key_of_the_others_leaves_the_signing_key_to_them() {
    let world = World::new().await;
    let key = LoginKeyRing::from(LoginKey::generate(&SystemRandom));
    auth::replace_signing_key(&world.api_store, &SystemRandom, Some(&key))
        .await
        .unwrap();
    let aged = "UPDATE pgmoor.signing_keys SET create_time = create_time - interval '31 days'";
    world.database.execute(aged).await;
    let id = async || {
        world
            .api_store
            .signing_keys()
            .current()
            .await
            .unwrap()
            .unwrap()
            .id
    };
    let before = id().await;
    let round = async |key: Option<LoginKeyRing>| {
        let (store, options) = (world.api_store.clone(), UpkeepOptions::default());
        Upkeep::new(store, Arc::new(SystemRandom), options, key)
            .round()
            .await;
    };
    for other in [None, Some(LoginKey::generate(&SystemRandom).into())] {
        round(other).await;
        assert_eq!(id().await, before);
    }
    round(Some(key)).await;
    assert_ne!(id().await, before);
}

#[tokio::test]
async fn login_key_is_changed_while_instances_log_people_in() {
    let world = World::new().await;
    world.user("alice", false).await;
    let (old, new) = (
        LoginKey::generate(&SystemRandom),
        LoginKey::generate(&SystemRandom),
    );
    let keys = |of: &[&LoginKey]| {
        let text: String = of
            .iter()
            .map(|key| key.to_text().expose_secret().to_owned())
            .collect();
        LoginKeys::from_text(&text.into()).unwrap()
    };
    auth::replace_signing_key(&world.api_store, &SystemRandom, Some(&old.clone().into()))
        .await
        .unwrap();
    let rings = [LoginKeyRing::from(old.clone()), LoginKeyRing::from(old.clone())];
    let log_in_everywhere = async || {
        for ring in &rings {
            // As after a start, which reads the key.
            let instance = logins_with(&world.api_store, &world.passwords, Some(ring.clone())).await;
            let pair = instance
                .unwrap()
                .login_with_password("alice", &PASSWORD.into())
                .await;
            world.accept(&pair.unwrap().access_token).await;
        }
    };
    // Every step comes to one instance after the other.
    for step in [keys(&[&old, &new]), keys(&[&new, &old])] {
        for ring in &rings {
            ring.hold(step.clone());
            log_in_everywhere().await;
        }
    }
    let reseal = async |ring: &LoginKeyRing| auth::reseal_logins(&world.api_store, ring, &SystemRandom).await;
    let stranger = reseal(&LoginKey::generate(&SystemRandom).into()).await;
    assert!(
        matches!(stranger, Err(ResealError::SigningKey(_))),
        "{stranger:?}"
    );
    let outcome = |anew| ResealedLogins {
        anew,
        void: 0,
        is_complete: true,
    };
    assert_eq!(reseal(&rings[0]).await.unwrap(), outcome(1));
    assert_eq!(reseal(&rings[0]).await.unwrap(), outcome(0));
    for ring in &rings {
        ring.hold(keys(&[&new]));
        log_in_everywhere().await;
    }
    let late = logins_with(&world.api_store, &world.passwords, Some(old.into())).await;
    assert!(matches!(late, Err(StartError::Key(UnusableKey::Sealed { .. }))));
}
