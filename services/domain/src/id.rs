//! Ids of resources. The server generates them; display names are free text beside them.
//!
//! An id is a UUID (RFC 9562, version 4) written in its lower-case hyphenated form and in no other: one resource has one
//! name, so that a name can be compared, cached and audited as a string.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

use crate::random::{self, Random};

/// A text that is not the id of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an id is a lower-case hyphenated UUID of 36 characters")]
pub struct InvalidId;

fn parse(text: &str) -> Result<Uuid, InvalidId> {
    let canonical = text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if !canonical {
        return Err(InvalidId);
    }
    Uuid::try_parse(text).map_err(|_| InvalidId)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id.
            #[must_use]
            pub fn generate(random: &dyn Random) -> Self {
                Self(uuid::Builder::from_random_bytes(random::bytes(random)).into_uuid())
            }

            /// The id as the config database stores it.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id as the config database stores it.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }
    )+};
}

ids! {
    /// A person or a workload that can log in.
    UserId,
    /// One login of a user: a family of refresh tokens.
    LoginId,
    /// A login at a provider that is under way.
    LoginAttemptId,
    /// A long-lived token a user made for automation.
    ApiTokenId,
    /// A physical PostgreSQL endpoint.
    InstanceId,
    /// A registration of an instance by a user or a group.
    ServerId,
    /// A number of users.
    GroupId,
    /// A set of permissions of one's own making.
    RoleId,
    /// A role, bound to a user or a group.
    RoleBindingId,
    /// A share in the use of a server.
    GrantId,
    /// A wish to write for a while, and what came of it.
    ElevationId,
    /// A sealed secret.
    CredentialId,
    /// A backup: an artifact and where it came from.
    BackupId,
    /// A piece of background work.
    OperationId,
    /// One execution of a script in a session.
    ExecutionId,
    /// One process that runs a role, from start to exit.
    IncarnationId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn id_survives_its_text_form() {
        let id = UserId::generate(&SeededRandom::new(1));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn id_has_one_spelling_only() {
        let id = UserId::generate(&SeededRandom::new(1)).to_string();
        for other in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            String::new(),
        ] {
            assert_eq!(other.parse::<UserId>(), Err(InvalidId), "{other}");
        }
    }
}
