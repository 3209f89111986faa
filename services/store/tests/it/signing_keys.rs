//! Signing keys.

use std::time::Duration;

use domain::random::{SystemRandom, bytes};
use futures::future::join_all;
use secrecy::{ExposeSecret, SecretBox};
use store::signing_keys::{NewSigningKey, SigningKeyId};

use crate::support::{HOUR, World};

fn new_key() -> NewSigningKey {
    NewSigningKey {
        id: SigningKeyId::from_bytes(bytes(&SystemRandom)),
        private_key: SecretBox::new(Box::new(bytes(&SystemRandom))),
        public_key: bytes(&SystemRandom),
    }
}

#[tokio::test]
async fn instances_that_start_at_once_agree_on_one_key() {
    let world = World::new().await;
    let keys = world.store.signing_keys();
    assert!(keys.current().await.unwrap().is_none());
    let got = join_all((0..5).map(|_| keys.current_or_insert(new_key()))).await;
    let got: Vec<_> = got.into_iter().map(Result::unwrap).collect();
    assert!(got.windows(2).all(|pair| pair[0].id == pair[1].id));
    assert!(
        got.windows(2)
            .all(|pair| pair[0].private_key.expose_secret() == pair[1].private_key.expose_secret())
    );
    assert_eq!(keys.verifying().await.unwrap().len(), 1);
}

#[tokio::test]
async fn key_that_was_replaced_verifies_until_it_is_retired() {
    let world = World::new().await;
    let keys = world.store.signing_keys();
    let first = keys.current_or_insert(new_key()).await.unwrap();
    let before = keys.revision().await.unwrap();
    let second = keys.rotate(new_key(), HOUR).await.unwrap();
    assert_ne!(keys.revision().await.unwrap(), before);
    assert_eq!(keys.current().await.unwrap().unwrap().id, second.id);
    let verifying: Vec<_> = keys
        .verifying()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.id)
        .collect();
    assert_eq!(verifying, [first.id, second.id]);
    let third = keys.rotate(new_key(), Duration::ZERO).await.unwrap();
    let verifying: Vec<_> = keys
        .verifying()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.id)
        .collect();
    assert_eq!(verifying, [first.id, third.id]);
}

#[tokio::test]
async fn private_key_is_in_no_debug_output() {
    let new = NewSigningKey {
        private_key: SecretBox::new(Box::new([77; 32])),
        ..new_key()
    };
    assert!(!format!("{new:?}").contains("77, 77"));
}
