//! OpenID providers: their metadata and keys, the grants by which a person logs in there, and the tokens that come of them.
//!
//! Invariant: nothing of a token is used before its signature, issuer, audience and times were checked. A provider is asked for
//! its keys anew at most once in ten seconds, however many tokens name a key it does not have. No redirect is followed, and TLS
//! is always verified.
//!
//! Deliberately absent: users and logins of pgmoor. Crate `auth` makes one out of the other.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod claims;
mod device;
mod error;
mod http;
mod issuer;
mod policy;
mod provider;
mod tokens;
mod workload;

pub use claims::{ClaimPath, Claims, InvalidClaimPath};
pub use device::{DeviceAuthorization, DevicePoll};
pub use error::ProviderError;
pub use http::{HttpClient, HttpClientError};
pub use issuer::Issuer;
pub use policy::{GroupRule, Identity, LoginPolicy, RequiredClaim};
pub use provider::{Authorization, Provider, ProviderOptions, Renewed};
pub use tokens::{Grant, ProviderToken};
pub use workload::{WorkloadRule, Workloads};
