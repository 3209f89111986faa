//! Who is calling: passwords, tokens, and the tower layer that turns a call's metadata into a
//! [`domain::access::Caller`].
//!
//! Invariant: API instances and poolers check a token in the same way, with [`TokenVerifier`], and neither
//! believes the other. What ends a login, a token or a user takes effect everywhere within 5 s, open streams
//! included; while the config database is away, what was known and access tokens stay good until they expire,
//! and nothing else is believed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access_token;
mod bearer;
mod error;
mod layer;
mod login_failure;
mod login_key;
mod login_key_ring;
mod logins;
mod open_streams;
pub mod password;
mod password_throttle;
pub mod provider_logins;
mod published_keys;
mod recent;
mod resealing;
mod revocation_feed;
mod rules;
mod secret_token;
mod seen;
mod signing_key;
mod standing;
pub mod status;
mod upkeep;
mod verifier;
mod verifying_keys;

pub use bearer::{Bearer, MAX_TOKEN_BYTES};
pub use error::AuthError;
pub use layer::{AuthLayer, Authenticated, WorkerCheck};
pub use login_failure::LoginFailure;
pub use login_key::{InvalidLoginKey, LoginKey, LoginKeyId};
pub use login_key_ring::{InvalidLoginKeys, LoginKeyRing, LoginKeys};
pub use logins::{ApiTokenGrant, Logins, LoginsOptions, TokenPair};
pub use password::{PasswordError, Passwords};
pub use provider_logins::{ProviderLogins, ProviderLoginsOptions, ProviderLoginsParts, StreamChecks};
pub use published_keys::published_keys;
pub use resealing::{ResealError, ResealedLogins, reseal_logins};
pub use revocation_feed::RevocationFeed;
pub use rules::UnknownMethodPermission;
pub use seen::Seen;
pub use signing_key::UnusableKey;
pub use upkeep::{Upkeep, UpkeepOptions, replace_signing_key};
pub use verifier::{HeardPolicy, StartError, TokenVerifier, VerifierOptions};
