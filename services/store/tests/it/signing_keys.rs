//! Signing keys.

use std::time::Duration;

use domain::random::{SystemRandom, bytes};
use futures::future::join_all;
use secrecy::{ExposeSecret, SecretBox};
use store::signing_keys::{NewSigningKey, PrivateKey, SigningKeyId};

use crate::support::{HOUR, World};

fn new_key() -> NewSigningKey {
    NewSigningKey {
        id: SigningKeyId::from_bytes(bytes(&SystemRandom)),
        private_key: PrivateKey::Clear(SecretBox::new(Box::new(bytes(&SystemRandom)))),
        public_key: bytes(&SystemRandom),
    }
}

fn bytes_of(key: &PrivateKey) -> Vec<u8> {
    match key {
        PrivateKey::Clear(key) => key.expose_secret().to_vec(),
        PrivateKey::Sealed(sealed) => sealed.clone(),
    }
}

#[tokio::test]
async fn key_that_is_sealed_is_kept_as_it_is_and_one_of_another_length_is_not() {
    let world = World::new().await;
    let keys = world.store.signing_keys();
    let sealed = NewSigningKey {
        private_key: PrivateKey::Sealed(vec![7; 72]),
        ..new_key()
    };
    let kept = keys.current_or_insert(sealed).await.unwrap();
    assert!(kept.private_key.is_sealed());
    assert_eq!(bytes_of(&kept.private_key), vec![7; 72]);
    for length in [0, 31, 33, 71, 73] {
        let odd = NewSigningKey {
            private_key: PrivateKey::Sealed(vec![7; length]),
            ..new_key()
        };
        assert!(keys.rotate(odd, HOUR).await.is_err(), "{length}");
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
            .all(|pair| bytes_of(&pair[0].private_key) == bytes_of(&pair[1].private_key))
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
        private_key: PrivateKey::Clear(SecretBox::new(Box::new([77; 32]))),
        ..new_key()
    };
    assert!(!format!("{new:?}").contains("77, 77"));
}
