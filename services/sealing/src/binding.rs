//! What a secret is bound to.

use domain::endpoint::Destination;
use domain::id::ServerId;

/// The server, role and destination a secret belongs to. It opens under exactly these.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The registration the secret was given for.
    pub server: ServerId,
    /// The PostgreSQL role it logs in.
    pub username: &'a str,
    /// Where it is sent.
    pub destination: &'a Destination,
}

impl Binding<'_> {
    /// The associated data of the encryption. Parts are preceded by their length, so that no two bindings share it.
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [
            self.server.as_uuid().as_bytes(),
            self.username.as_bytes(),
            &self.destination.canonical(),
        ] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}
