//! Sealed credentials: whoever has the public key can write a secret down, only the holder of the opening key can read it.
//!
//! HPKE (RFC 9180) in base mode: X25519, HKDF-SHA256, ChaCha20-Poly1305. API instances hold a [`Sealer`], poolers and workers an
//! [`Opener`]; no type does both. A secret is bound to the server it belongs to, whose it is, the role it logs in and the destination it
//! is sent to: in another place it does not open.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod binding;
mod key;
mod opener;
mod sealer;

pub use binding::Binding;
pub use key::{InvalidKey, KeyId, OpeningKey, SealingKey};
pub use opener::{OpenError, Opener};
pub use sealer::{SealError, Sealed, Sealer};

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;

/// Keeps our ciphertexts apart from those of any other use of the same key.
const INFO: &[u8] = b"pgmoor credential v1";

#[cfg(test)]
mod tests {
    use domain::credential::CredentialKind;
    use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
    use domain::id::{ServerId, UserId};
    use domain::random::SeededRandom;
    use secrecy::{ExposeSecret, SecretString};

    use super::*;

    fn destination(host: &str) -> Destination {
        let tls = TlsPolicy::new(SslMode::VerifyFull, "").unwrap();
        Destination::new(vec![Endpoint::new(host, 5432).unwrap()], tls).unwrap()
    }

    struct World {
        random: SeededRandom,
        opening: OpeningKey,
        server: ServerId,
        here: Destination,
    }

    impl World {
        fn new() -> Self {
            let random = SeededRandom::new(7);
            Self {
                opening: OpeningKey::generate(&random),
                server: ServerId::generate(&random),
                here: destination("db.example.com"),
                random,
            }
        }

        fn binding(&self) -> Binding<'_> {
            Binding {
                server: self.server,
                kind: CredentialKind::Shared,
                username: "app",
                destination: &self.here,
            }
        }

        fn sealed(&self) -> Sealed {
            Sealer::new(self.opening.sealing_key())
                .seal(&self.binding(), &SecretString::from("s3cret"), &self.random)
                .unwrap()
        }

        fn opener(&self) -> Opener {
            Opener::new([self.opening.clone()])
        }
    }

    #[test]
    fn sealed_secret_opens_where_it_belongs() {
        let world = World::new();
        let opened = world.opener().open(&world.binding(), &world.sealed()).unwrap();
        assert_eq!(opened.expose_secret(), "s3cret");
    }

    #[test]
    fn secret_is_void_elsewhere() {
        let world = World::new();
        let sealed = world.sealed();
        let there = destination("evil.example.com");
        for binding in [
            Binding {
                destination: &there,
                ..world.binding()
            },
            Binding {
                username: "postgres",
                ..world.binding()
            },
            Binding {
                server: ServerId::generate(&world.random),
                ..world.binding()
            },
        ] {
            assert_eq!(
                world.opener().open(&binding, &sealed).unwrap_err(),
                OpenError::Void
            );
        }
    }

    #[test]
    fn secret_of_one_is_void_for_any_other() {
        let world = World::new();
        let [ann, bob] = [(); 2].map(|()| CredentialKind::Personal(UserId::generate(&world.random)));
        let kinds = [CredentialKind::Shared, CredentialKind::ReadOnly, ann, bob];
        let of = |kind| Binding {
            kind,
            ..world.binding()
        };
        let sealer = Sealer::new(world.opening.sealing_key());
        for kind in kinds {
            let sealed = sealer.seal(&of(kind), &SecretString::from("s3cret"), &world.random);
            let sealed = sealed.unwrap();
            for other in kinds {
                let opened = world.opener().open(&of(other), &sealed);
                assert_eq!(opened.is_ok(), kind == other, "{kind:?} as {other:?}");
            }
        }
    }

    #[test]
    fn altered_secret_does_not_open() {
        let world = World::new();
        let sealed = world.sealed();
        for index in 0..sealed.bytes.len() {
            let mut altered = sealed.clone();
            altered.bytes[index] ^= 1;
            assert_eq!(
                world.opener().open(&world.binding(), &altered).unwrap_err(),
                OpenError::Void,
                "byte {index}"
            );
        }
        let cut = Sealed {
            bytes: sealed.bytes[..20].to_vec(),
            ..sealed
        };
        assert_eq!(
            world.opener().open(&world.binding(), &cut).unwrap_err(),
            OpenError::Void
        );
    }

    #[test]
    fn key_that_is_not_held_is_named() {
        let world = World::new();
        let other = Opener::new([OpeningKey::generate(&world.random)]);
        let sealed = world.sealed();
        assert_eq!(
            other.open(&world.binding(), &sealed).unwrap_err(),
            OpenError::UnknownKey {
                key: sealed.key.clone()
            }
        );
    }

    #[test]
    fn ring_that_is_replaced_is_replaced_for_all() {
        let world = World::new();
        let opener = world.opener();
        let other = opener.clone();
        let next = OpeningKey::generate(&world.random);
        other.hold([next.clone()]);
        assert_eq!(opener.key_ids(), [next.sealing_key().id()].into());
        opener.open(&world.binding(), &world.sealed()).unwrap_err();
        other.hold([next, world.opening.clone()]);
        opener.open(&world.binding(), &world.sealed()).unwrap();
    }

    #[test]
    fn opening_key_survives_its_text_form() {
        let key = World::new().opening;
        let text = key.to_text();
        let read = OpeningKey::from_text(&text).unwrap();
        assert_eq!(read.sealing_key(), key.sealing_key());
        assert!(!format!("{key:?}").contains(text.expose_secret().trim().rsplit(':').next().unwrap()));
        for bad in [
            "",
            "pgmoor-opening-key-1:",
            "pgmoor-opening-key-1:AAAA",
            "ssh-ed25519 AAAA",
        ] {
            assert!(OpeningKey::from_text(&SecretString::from(bad)).is_err(), "{bad}");
        }
    }
}
