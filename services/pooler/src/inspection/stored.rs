//! What was found, as the config database keeps it: known to every pooler, and after each has died.

use domain::credential::CredentialKind;
use domain::id::CredentialId;
use rpc::server::v1::EnforcementReasonCode as Code;
use store::inspections::{Beyond as StoredBeyond, InspectedRole, Inspection, Kept, Reason};
use time::OffsetDateTime;

use super::{Beyond, Finding, Passes, Subject};

const PREFIX: &str = "ENFORCEMENT_REASON_CODE_";

impl Subject {
    /// As the config database knows it. Nothing of a personal credential: that is known to who has its sessions.
    pub(crate) fn stored(&self) -> Option<InspectedRole<'_>> {
        match self.kind {
            CredentialKind::Personal(_) => None,
            CredentialKind::Shared | CredentialKind::ReadOnly => Some(InspectedRole {
                server: self.server,
                kind: self.kind,
                username: &self.username,
                database: &self.database,
            }),
        }
    }
}

impl Finding {
    /// As it is stored, of a look with that credential.
    pub(crate) fn to_store(&self, credential: CredentialId) -> Inspection {
        Inspection {
            credential,
            trusted_functions: self.passes.trusted_functions.clone(),
            allowed_databases: self.passes.databases.clone(),
            read_only: self.read_only.to_store(),
            tenancy: self.tenancy.to_store(),
        }
    }

    /// What is stored, as it was read at that time.
    pub(crate) fn from_store(kept: Kept, now: OffsetDateTime) -> Self {
        let stored = kept.inspection;
        Self {
            time: kept.check_time,
            looked: now - kept.age,
            credential: Some(stored.credential),
            passes: Passes {
                trusted_functions: stored.trusted_functions,
                databases: stored.allowed_databases,
            },
            read_only: Beyond::from_store(stored.read_only),
            tenancy: Beyond::from_store(stored.tenancy),
        }
    }
}

impl Beyond {
    fn to_store(&self) -> StoredBeyond {
        let reason = |(code, object): &(Code, String)| {
            let name = code.as_str_name();
            Reason {
                code: name.strip_prefix(PREFIX).unwrap_or(name).to_owned(),
                object: object.clone(),
            }
        };
        StoredBeyond {
            count: self.count,
            reasons: self.reasons.iter().map(reason).collect(),
        }
    }

    fn from_store(stored: StoredBeyond) -> Self {
        let reasons = stored.reasons.into_iter().map(|Reason { code, object }| {
            // A word of a later version is a right all the same.
            let code = Code::from_str_name(&format!("{PREFIX}{code}"));
            (code.unwrap_or_default(), object)
        });
        Self {
            reasons: reasons.collect(),
            count: stored.count,
        }
    }
}
