//! Who a certificate says its holder is.

use std::fmt;
use std::str::FromStr;

use config::Role;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The name of one process among those of its role: 1 to 63 letters, digits, hyphens and dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerName(String);

impl FromStr for PeerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let edges = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if edges && text.len() <= 63 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a name has 1 to 63 letters, digits, hyphens and dots, and begins with a letter or digit")
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process that showed a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// What it does.
    pub(crate) role: Role,
    /// Which of them it is.
    pub(crate) name: PeerName,
}

impl Peer {
    /// Reads the URI of a certificate that was verified already. `None` where it names no process of ours, or
    /// several.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return None;
        };
        Self::of_uri(uri)
    }

    fn of_uri(uri: &str) -> Option<Self> {
        let (role, name) = uri.strip_prefix("pgmoor://")?.split_once('/')?;
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role)?;
        Some(Self {
            role,
            name: name.parse().ok()?,
        })
    }
}

impl fmt::Display for Peer {
    /// The URI.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pgmoor://{}/{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_survives_its_uri() {
        let peer = Peer {
            role: Role::Worker,
            name: "worker-1.example".parse().unwrap(),
        };
        assert_eq!(Peer::of_uri(&peer.to_string()), Some(peer));
    }

    #[test]
    fn other_uris_name_nobody() {
        let others = [
            "pgmoor://api",
            "pgmoor://api/",
            "pgmoor://nobody/a",
            "spiffe://api/a",
            "pgmoor://api/a/b",
            "pgmoor://api/-a",
        ];
        for uri in others {
            assert_eq!(Peer::of_uri(uri), None, "{uri}");
        }
    }
}
