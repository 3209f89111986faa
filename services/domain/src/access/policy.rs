//! What a server allows, whoever asks: its owner is held to it too.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Access, MAX_ELEVATION};
use crate::credential::CredentialMode;
use crate::name::Identifier;

/// Longest label of an environment, in characters.
pub const MAX_ENVIRONMENT_CHARS: usize = 63;
/// Most databases a policy or a grant may name.
pub const MAX_DATABASES: usize = 1000;

/// Who the databases of a server belong to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tenancy {
    /// One team has the whole server.
    #[default]
    Single,
    /// Others have databases there too: these are the ones that may be used.
    Multi {
        /// The databases.
        databases: BTreeSet<Identifier>,
    },
}

/// The policy of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPolicy {
    /// What the server is for, such as `staging`; empty where nobody said.
    pub environment: String,
    /// The most that anybody may do.
    pub ceiling: Access,
    /// Whose the databases are.
    pub tenancy: Tenancy,
    /// Whether backups may be made.
    pub backups: bool,
    /// Whether backups may be restored there.
    pub restores: bool,
    /// How long somebody may be let write beyond the ceiling, or beyond their own rights; nothing for never. In whole seconds.
    pub max_elevation: Option<Duration>,
    /// With which credentials it may be used.
    pub credential_mode: CredentialMode,
}

impl Default for ServerPolicy {
    /// Everything, as before there were policies.
    fn default() -> Self {
        Self {
            environment: String::new(),
            ceiling: Access::ReadWrite,
            tenancy: Tenancy::Single,
            backups: true,
            restores: true,
            max_elevation: None,
            credential_mode: CredentialMode::Shared,
        }
    }
}

impl ServerPolicy {
    /// Everything is allowed.
    #[must_use]
    pub fn staging(tenancy: Tenancy) -> Self {
        Self {
            environment: "staging".to_owned(),
            tenancy,
            ..Self::default()
        }
    }

    /// Nothing is written, and no data leaves as a file.
    #[must_use]
    pub fn production(tenancy: Tenancy) -> Self {
        Self {
            environment: "production".to_owned(),
            ceiling: Access::ReadOnly,
            tenancy,
            backups: false,
            restores: false,
            max_elevation: None,
            credential_mode: CredentialMode::Shared,
        }
    }

    /// Whether the database may be used at all.
    #[must_use]
    pub fn allows_database(&self, database: &Identifier) -> bool {
        match &self.tenancy {
            Tenancy::Single => true,
            Tenancy::Multi { databases } => databases.contains(database),
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let databases = match &self.tenancy {
            Tenancy::Single => Value::Null,
            Tenancy::Multi { databases } => databases.iter().map(Identifier::as_str).collect(),
        };
        json!({
            "environment": self.environment,
            "ceiling": self.ceiling.as_str(),
            "databases": databases,
            "backups": self.backups,
            "restores": self.restores,
            "max_elevation": self.max_elevation.map(|longest| longest.as_secs()),
            "credential_mode": self.credential_mode.as_str(),
        })
    }

    /// Reads what was stored; nothing where no program of ours could have written it. What is not there has its default.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let fields = value.as_object()?;
        let flag = |name| match fields.get(name) {
            None => Some(true),
            Some(value) => value.as_bool(),
        };
        Some(Self {
            environment: match fields.get("environment") {
                None => String::new(),
                Some(value) => value.as_str()?.to_owned(),
            },
            ceiling: match fields.get("ceiling") {
                None => Access::ReadWrite,
                Some(value) => value.as_str()?.parse().ok()?,
            },
            tenancy: match fields.get("databases") {
                None | Some(Value::Null) => Tenancy::Single,
                Some(value) => Tenancy::Multi {
                    databases: identifiers(value)?,
                },
            },
            backups: flag("backups")?,
            restores: flag("restores")?,
            max_elevation: match fields.get("max_elevation") {
                None | Some(Value::Null) => None,
                Some(value) => Some(
                    value
                        .as_u64()
                        .map(Duration::from_secs)
                        .filter(|longest| *longest <= MAX_ELEVATION)?,
                ),
            },
            credential_mode: match fields.get("credential_mode") {
                None => CredentialMode::default(),
                Some(value) => value.as_str()?.parse().ok()?,
            },
        })
    }
}

/// Reads a list of databases.
pub(super) fn identifiers(value: &Value) -> Option<BTreeSet<Identifier>> {
    let names = value.as_array()?.iter();
    names.map(|name| name.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_survives_its_stored_form() {
        let databases = BTreeSet::from(["shop".parse().unwrap(), "a\"b".parse().unwrap()]);
        for policy in [
            ServerPolicy::default(),
            ServerPolicy::staging(Tenancy::Single),
            ServerPolicy {
                max_elevation: Some(Duration::from_secs(90)),
                ..ServerPolicy::production(Tenancy::Multi { databases })
            },
            ServerPolicy {
                credential_mode: CredentialMode::PersonalOnly,
                ..ServerPolicy::default()
            },
        ] {
            assert_eq!(ServerPolicy::from_json(&policy.to_json()), Some(policy));
        }
        assert_eq!(ServerPolicy::from_json(&json!({})), Some(ServerPolicy::default()));
        assert_eq!(ServerPolicy::from_json(&json!({"ceiling": "all"})), None);
        assert_eq!(ServerPolicy::from_json(&json!({"databases": "shop"})), None);
        assert_eq!(ServerPolicy::from_json(&json!({"credential_mode": "none"})), None);
    }
}
