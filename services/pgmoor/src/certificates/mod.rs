//! Certificates with which roles prove to each other who they are.
//!
//! A certificate names a process twice: as the URI `pgmoor://<role>/<name>`, which says who it is, and as the
//! DNS name `<role>.pgmoor.internal`, which a client checks before it talks to a server. So a certificate of
//! one role is no use in another, and an address may change without a new certificate.

mod authority;
mod peer;

pub(crate) use authority::{Authority, Subject};
pub(crate) use peer::{Peer, PeerName};

/// The domain of the names in certificates. It is resolved nowhere.
pub(crate) const DOMAIN: &str = "pgmoor.internal";

/// The DNS name of a role, which its certificates carry.
pub(crate) fn dns_name(role: config::Role) -> String {
    format!("{role}.{DOMAIN}")
}
