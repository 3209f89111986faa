//! Which of our roles is at the other end of an internal connection.
//!
//! A role is what the peer's certificate says in a URI of its alternative names: `pgmoor://api/name` (RFC 5280,
//! 4.2.1.6). The TLS layer has verified the certificate by then.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tonic::Request;
use tonic::transport::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// A role of pgmoor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// `pgmoor api`: calls on behalf of users.
    Api,
    /// `pgmoor worker`: leases slots.
    Worker,
    /// `pgmoor pooler`: asks other poolers.
    Pooler,
}

/// How the role of a peer is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPolicy {
    /// By its certificate. Without one it has no role.
    Certificates,
    /// Everybody has every role: only for a connection that nobody else can reach, inside one process.
    Trusted,
}

type Chain = Vec<CertificateDer<'static>>;

/// Finds out roles, and remembers them as long as their connections live.
#[derive(Debug)]
pub(crate) struct Peers {
    policy: PeerPolicy,
    /// A certificate is read once for each connection, not for each call.
    known: RwLock<Vec<(Weak<Chain>, Option<PeerRole>)>>,
}

impl Peers {
    pub(crate) fn new(policy: PeerPolicy) -> Self {
        Self {
            policy,
            known: RwLock::default(),
        }
    }

    /// True where the peer that sent the request has this role.
    pub(crate) fn has_role<T>(&self, request: &Request<T>, role: PeerRole) -> bool {
        match self.policy {
            PeerPolicy::Trusted => true,
            PeerPolicy::Certificates => request
                .peer_certs()
                .is_some_and(|chain| self.role(&chain) == Some(role)),
        }
    }

    fn role(&self, chain: &Arc<Chain>) -> Option<PeerRole> {
        let this = Arc::as_ptr(chain);
        if let Some((_, role)) = self.known.read().iter().find(|(known, _)| known.as_ptr() == this) {
            return *role;
        }
        let role = chain
            .first()
            .and_then(|certificate| certificate_role(certificate));
        let mut known = self.known.write();
        // While we hold a weak reference the address is not used again for another chain.
        known.retain(|(known, _)| known.strong_count() > 0);
        known.push((Arc::downgrade(chain), role));
        role
    }
}

/// The role that a certificate states.
fn certificate_role(certificate: &[u8]) -> Option<PeerRole> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        let (role, name) = uri.strip_prefix("pgmoor://")?.split_once('/')?;
        match role {
            _ if name.is_empty() => None,
            "api" => Some(PeerRole::Api),
            "worker" => Some(PeerRole::Worker),
            "pooler" => Some(PeerRole::Pooler),
            _ => None,
        }
    })
}
