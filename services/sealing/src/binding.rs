//! What a secret is bound to.

use domain::credential::CredentialKind;
use domain::endpoint::Destination;
use domain::id::ServerId;

/// The server, owner, role and destination a secret belongs to. It opens under exactly these.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The registration the secret was given for.
    pub server: ServerId,
    /// Whose it is.
    pub kind: CredentialKind,
    /// The PostgreSQL role it logs in.
    pub username: &'a str,
    /// Where it is sent.
    pub destination: &'a Destination,
}

impl Binding<'_> {
    /// The associated data of the encryption. Parts are preceded by their length, so that no two bindings share it.
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        add(self.server.as_uuid().as_bytes());
        add(self.username.as_bytes());
        add(&self.destination.canonical());
        // What is shared says no more, as before there was anything else.
        if self.kind != CredentialKind::Shared {
            add(self.kind.as_str().as_bytes());
        }
        if let Some(user) = self.kind.user() {
            add(user.as_uuid().as_bytes());
        }
        bytes
    }
}
