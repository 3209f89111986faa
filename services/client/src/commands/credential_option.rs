//! Which credential of a server is meant.

use clap::{Args, ValueEnum};
use rpc::server::v1::CredentialKind;

/// Which credential is meant.
#[derive(Debug, Clone, Args)]
pub struct CredentialOption {
    /// Log in with this credential; without it the one that would be used
    #[arg(long, value_enum, value_name = "KIND")]
    credential: Option<Kind>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The server's own role and password
    Shared,
    /// That of read-only sessions
    ReadOnly,
    /// Your own
    Personal,
}

impl CredentialOption {
    pub(super) fn kind(&self) -> CredentialKind {
        match self.credential {
            None => CredentialKind::Unspecified,
            Some(Kind::Shared) => CredentialKind::Shared,
            Some(Kind::ReadOnly) => CredentialKind::ReadOnly,
            Some(Kind::Personal) => CredentialKind::Personal,
        }
    }
}
