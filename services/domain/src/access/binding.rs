//! To whom a role is bound, and where.

use std::fmt;
use std::str::FromStr;

use super::Role;
use crate::id::{GroupId, InvalidId, RoleId, ServerId, UserId};
use crate::name::DisplayName;

/// Who a role is bound to, has a grant, or owns a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A user.
    User(UserId),
    /// All who are in a group.
    Group(GroupId),
}

impl Principal {
    /// The user, where it is one.
    #[must_use]
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Group(_) => None,
        }
    }

    /// The group, where it is one.
    #[must_use]
    pub const fn group(self) -> Option<GroupId> {
        match self {
            Self::User(_) => None,
            Self::Group(group) => Some(group),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "users/{user}"),
            Self::Group(group) => write!(f, "groups/{group}"),
        }
    }
}

impl FromStr for Principal {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            Some(("users", user)) => user.parse().map(Self::User),
            Some(("groups", group)) => group.parse().map(Self::Group),
            _ => Err(InvalidId),
        }
    }
}

/// A role by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// A built-in one.
    BuiltIn(Role),
    /// One of one's own making.
    Custom(RoleId),
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(role) => write!(f, "roles/{}", role.as_str()),
            Self::Custom(role) => write!(f, "roles/{role}"),
        }
    }
}

impl FromStr for RoleName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let name = text.strip_prefix("roles/").ok_or(InvalidId)?;
        match Role::named(name) {
            Some(role) => Ok(Self::BuiltIn(role)),
            None => name.parse().map(Self::Custom),
        }
    }
}

/// Where a role is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere: on every server, and where it is not about servers.
    Everywhere,
    /// On the servers that an owner has in a group of theirs.
    ServerGroup {
        /// The owner.
        owner: Principal,
        /// The group that the servers stand in.
        group: DisplayName,
    },
    /// On one server.
    Server(ServerId),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn names_survive_their_text_form() {
        let random = SeededRandom::new(3);
        for principal in [
            Principal::User(UserId::generate(&random)),
            Principal::Group(GroupId::generate(&random)),
        ] {
            assert_eq!(principal.to_string().parse(), Ok(principal));
        }
        for role in [
            RoleName::BuiltIn(Role::Auditor),
            RoleName::Custom(RoleId::generate(&random)),
        ] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for wrong in ["", "roles/", "roles/Member", "users/x", "groups", "teams/1"] {
            assert!(wrong.parse::<Principal>().is_err() && wrong.parse::<RoleName>().is_err());
        }
    }
}
