//! Sealing with the first login key what rests sealed with another one of the ring, while everything serves.

use domain::random::Random;
use store::sealed_logins::{SealedPlace, SealedText};
use store::{Store, StoreError};
use thiserror::Error;

use crate::login_key::Purpose;
use crate::login_key_ring::{LoginKeyRing, Resealed};
use crate::signing_key::UnusableKey;

/// Texts read at once.
const BATCH: u16 = 200;
/// Most rounds of one run: while an instance seals with another key than the first, each finds something.
const ROUNDS: usize = 3;

/// What came of what is sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResealedLogins {
    /// How many texts were sealed anew.
    pub anew: usize,
    /// How many no key of the ring opens.
    pub void: usize,
    /// Whether the last round found nothing but what the first key seals.
    pub is_complete: bool,
}

/// Why not everything was sealed anew.
#[derive(Debug, Error)]
pub enum ResealError {
    /// The ring does not open the key that signs. Nothing was changed.
    #[error(transparent)]
    SigningKey(#[from] UnusableKey),
    /// The database failed. What was done stays done.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Seals everything with the first key of the ring. What is written meanwhile with another one is found in a round of its own, and
/// where that does not come to an end the outcome is not complete.
///
/// # Errors
/// [`ResealError`] by cause.
pub async fn reseal_logins(
    store: &Store,
    ring: &LoginKeyRing,
    random: &dyn Random,
) -> Result<ResealedLogins, ResealError> {
    let mut total = ResealedLogins::default();
    for _ in 0..ROUNDS {
        let round = round(store, ring, random).await?;
        total.anew += round.anew;
        total.void = round.void;
        total.is_complete = round.is_complete;
        if round.anew == 0 {
            break;
        }
    }
    Ok(total)
}

async fn round(
    store: &Store,
    ring: &LoginKeyRing,
    random: &dyn Random,
) -> Result<ResealedLogins, ResealError> {
    let mut outcome = ResealedLogins {
        is_complete: true,
        ..ResealedLogins::default()
    };
    for place in SealedPlace::ALL {
        let mut after = None;
        loop {
            let batch = store.sealed_logins().list(place, after, BATCH).await?;
            let Some(last) = batch.last() else { break };
            after = Some(last.id);
            for found in &batch {
                match ring.reseal(purpose(found), &found.sealed, random) {
                    Resealed::Current => {}
                    Resealed::Anew(anew) => {
                        let replaced = store.sealed_logins().replace(found, &anew).await?;
                        outcome.anew += usize::from(replaced);
                        outcome.is_complete = false;
                    }
                    Resealed::Void if place == SealedPlace::SigningKey => {
                        return Err(UnusableKey::Sealed { id: found.id }.into());
                    }
                    Resealed::Void => {
                        outcome.void += 1;
                        outcome.is_complete = false;
                    }
                }
            }
        }
    }
    Ok(outcome)
}

fn purpose(found: &SealedText) -> Purpose<'_> {
    let (one, two) = (&found.bound_to.0, &found.bound_to.1);
    match found.place {
        SealedPlace::SigningKey => Purpose::SigningKey {
            id: one,
            public_key: two,
        },
        SealedPlace::LoginToken | SealedPlace::AttemptToken => Purpose::ProviderToken {
            issuer: one,
            subject: two,
        },
        SealedPlace::Attempt => Purpose::Attempt {
            id: one,
            code_challenge: two,
        },
    }
}
