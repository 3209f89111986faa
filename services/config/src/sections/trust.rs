//! `[trust]`: the certificates with which roles prove to each other who they are.
//!
//! `pgmoor admin issue-certificate` makes the files.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::problem::Problem;

/// What a process does. A certificate is issued to a role, and is good for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Serves the public API.
    Api,
    /// Owns the connections to targets.
    Pooler,
    /// Runs operations.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Api, Self::Pooler, Self::Worker];

    /// The word used in certificates, telemetry and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Pooler => "pooler",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Keys of `[trust]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Certificate of the authority that issued every role's certificate, as a PEM file. It trusts no other.
    /// No default.
    pub authority: Option<PathBuf>,
    /// What the API shows to poolers.
    pub api: Files,
    /// What the pooler shows to those who call it.
    pub pooler: Files,
    /// What the worker shows to poolers.
    pub worker: Files,
}

/// Keys of `[trust.api]`, `[trust.pooler]` and `[trust.worker]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// The role's certificate, as a PEM file. No default.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, as a PEM file. No default.
    pub key: Option<PathBuf>,
}

/// The files of one role, all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The role.
    pub role: Role,
    /// The authority's certificate.
    pub authority: &'a Path,
    /// The role's certificate.
    pub certificate: &'a Path,
    /// Its private key.
    pub key: &'a Path,
}

impl Trust {
    /// The files of a role.
    ///
    /// # Errors
    /// When one of the three is not set.
    pub fn require_identity(&self, role: Role) -> Result<Identity<'_>, Problem> {
        let missing = |key: &str| Problem::missing(key, "make it with `pgmoor admin issue-certificate`");
        let files = self.files(role);
        let authority = self
            .authority
            .as_deref()
            .ok_or_else(|| missing("trust.authority"))?;
        let certificate = files
            .certificate
            .as_deref()
            .ok_or_else(|| missing(&format!("trust.{role}.certificate")))?;
        let key = files
            .key
            .as_deref()
            .ok_or_else(|| missing(&format!("trust.{role}.key")))?;
        Ok(Identity {
            role,
            authority,
            certificate,
            key,
        })
    }

    /// Whether anything is set for that role.
    #[must_use]
    pub fn mentions(&self, role: Role) -> bool {
        let files = self.files(role);
        files.certificate.is_some() || files.key.is_some()
    }

    fn files(&self, role: Role) -> &Files {
        match role {
            Role::Api => &self.api,
            Role::Pooler => &self.pooler,
            Role::Worker => &self.worker,
        }
    }

    pub(crate) fn validate(&self) -> Vec<Problem> {
        let unpaired = Role::ALL.into_iter().filter(|&role| {
            let files = self.files(role);
            files.certificate.is_some() != files.key.is_some()
        });
        unpaired
            .map(|role| {
                let reason = format!("and trust.{role}.key belong together: set both or neither");
                Problem::invalid(&format!("trust.{role}.certificate"), reason)
            })
            .collect()
    }
}
