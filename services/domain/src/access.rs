//! Who calls, and what they may do at all. What they may do to one resource is decided where the resource is
//! read.
//!
//! Invariant: a permission is granted by a role and by nothing else; [`Permission::SlotsLease`] and
//! [`Permission::InstancesOwn`] are granted to no user.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use time::OffsetDateTime;

use crate::id::{ApiTokenId, LoginId, UserId};

/// A text that names no permission.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no permission {name:?}")]
pub struct UnknownPermission {
    /// The text.
    pub name: String,
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// What a method needs of its caller, written `noun.verb` in the options of `proto/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $($(#[$doc])* $variant,)+
        }

        impl Permission {
            /// Every permission there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The permission as `proto/` spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl FromStr for Permission {
            type Err = UnknownPermission;

            fn from_str(text: &str) -> Result<Self, UnknownPermission> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(UnknownPermission { name: text.to_owned() }),
                }
            }
        }
    };
}

permissions! {
    /// Use one's own account: see oneself, log out, keep API tokens, set the password.
    AccountUse = "account.use",
    /// List users.
    UsersRead = "users.read",
    /// Make users.
    UsersCreate = "users.create",
    /// Change and disable users; set another user's password (checked in code, the method also serves one's
    /// own).
    UsersUpdate = "users.update",
    /// Read one's settings.
    SettingsRead = "settings.read",
    /// Change one's settings.
    SettingsUpdate = "settings.update",
    /// See the instances of the servers one may see.
    InstancesRead = "instances.read",
    /// Make the instance of a new server where there is none (checked in code).
    InstancesCreate = "instances.create",
    /// Change the budget and the policy of an instance.
    InstancesUpdate = "instances.update",
    /// See pools, clients, backends and budgets: of one's own servers, or of all for an administrator.
    PoolsRead = "pools.read",
    /// Pause and resume instances, replace backends, end sessions of others, drain poolers.
    PoolsUpdate = "pools.update",
    /// See servers.
    ServersRead = "servers.read",
    /// Register servers.
    ServersCreate = "servers.create",
    /// Change servers and their credentials.
    ServersUpdate = "servers.update",
    /// Remove servers.
    ServersDelete = "servers.delete",
    /// Connect to a server, without SQL of one's own.
    ServersUse = "servers.use",
    /// Open sessions and run SQL.
    SessionsUse = "sessions.use",
    /// See operations and their logs.
    OperationsRead = "operations.read",
    /// Cancel operations and delete finished ones.
    OperationsCancel = "operations.cancel",
    /// Start backups.
    BackupsCreate = "backups.create",
    /// See backups.
    BackupsRead = "backups.read",
    /// Delete backups.
    BackupsDelete = "backups.delete",
    /// Start restores.
    BackupsRestore = "backups.restore",
    /// List and download files.
    FilesRead = "files.read",
    /// Upload, change and delete files.
    FilesWrite = "files.write",
    /// Read the audit trail.
    AuditRead = "audit.read",
    /// Hold slots of an instance's connection budget for children of a worker. Shown by a worker's
    /// certificate only.
    SlotsLease = "slots.lease",
    /// Own an instance: open connections to it. Shown by a pooler's certificate only.
    InstancesOwn = "instances.own",
}

impl Permission {
    /// The permissions that no method states in its options, because code asks for them beside another one.
    pub const CHECKED_IN_CODE: &'static [Self] = &[Self::InstancesCreate];
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions that is given to a person as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Works with what is theirs.
    Member,
    /// Administers pgmoor itself.
    Administrator,
}

impl Role {
    /// Whether the role grants the permission.
    #[must_use]
    pub const fn grants(self, permission: Permission) -> bool {
        match permission {
            Permission::SlotsLease | Permission::InstancesOwn => false,
            Permission::UsersRead
            | Permission::UsersCreate
            | Permission::UsersUpdate
            | Permission::InstancesCreate
            | Permission::InstancesUpdate
            | Permission::PoolsUpdate
            | Permission::AuditRead => matches!(self, Self::Administrator),
            Permission::AccountUse
            | Permission::SettingsRead
            | Permission::SettingsUpdate
            | Permission::InstancesRead
            | Permission::PoolsRead
            | Permission::ServersRead
            | Permission::ServersCreate
            | Permission::ServersUpdate
            | Permission::ServersDelete
            | Permission::ServersUse
            | Permission::SessionsUse
            | Permission::OperationsRead
            | Permission::OperationsCancel
            | Permission::BackupsCreate
            | Permission::BackupsRead
            | Permission::BackupsDelete
            | Permission::BackupsRestore
            | Permission::FilesRead
            | Permission::FilesWrite => true,
        }
    }
}

/// How a caller was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// By an access token of a login.
    AccessToken {
        /// The login; it ends all its tokens at once.
        login: LoginId,
    },
    /// By a token made for automation.
    ApiToken {
        /// The token.
        id: ApiTokenId,
    },
}

/// A user whose credential was checked, as of a few seconds ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The login name.
    pub username: String,
    /// What people call the user.
    pub display_name: String,
    /// True for a user who administers pgmoor itself.
    pub administrator: bool,
    /// How the user was recognised.
    pub credential: CredentialKind,
    /// When the credential was issued, on the config database's clock: a revocation of the user voids what
    /// came before it.
    pub issued: OffsetDateTime,
    /// When the credential expires; `None` where it lives until it is revoked.
    pub expires: Option<OffsetDateTime>,
}

impl Caller {
    /// The caller's role.
    #[must_use]
    pub const fn role(&self) -> Role {
        if self.administrator {
            Role::Administrator
        } else {
            Role::Member
        }
    }
}

/// Whether the caller has the permission.
#[must_use]
pub const fn allows(caller: &Caller, permission: Permission) -> bool {
    caller.role().grants(permission)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    fn caller(administrator: bool) -> Caller {
        let random = SeededRandom::new(7);
        Caller {
            user: UserId::generate(&random),
            username: "alice".to_owned(),
            display_name: "Alice".to_owned(),
            administrator,
            credential: CredentialKind::AccessToken {
                login: LoginId::generate(&random),
            },
            issued: OffsetDateTime::UNIX_EPOCH,
            expires: None,
        }
    }

    #[test]
    fn permission_survives_its_text_form() {
        for permission in Permission::ALL {
            assert_eq!(permission.to_string().parse(), Ok(*permission));
        }
    }

    #[test]
    fn permission_has_one_spelling_only() {
        for other in ["", "Users.Read", "users.read ", "users", "users.*", "users.fly"] {
            assert!(other.parse::<Permission>().is_err(), "{other:?}");
        }
    }

    #[test]
    fn administrator_has_every_permission_but_those_of_processes() {
        for permission in Permission::ALL {
            assert_eq!(
                allows(&caller(true), *permission),
                ![Permission::SlotsLease, Permission::InstancesOwn].contains(permission),
                "{permission}"
            );
        }
    }

    #[test]
    fn member_has_no_say_over_other_users_and_instances() {
        let denied: Vec<_> = Permission::ALL
            .iter()
            .filter(|permission| !allows(&caller(false), **permission))
            .collect();
        let wanted = [
            Permission::UsersRead,
            Permission::UsersCreate,
            Permission::UsersUpdate,
            Permission::InstancesCreate,
            Permission::InstancesUpdate,
            Permission::PoolsUpdate,
            Permission::AuditRead,
            Permission::SlotsLease,
            Permission::InstancesOwn,
        ];
        assert_eq!(denied, wanted.iter().collect::<Vec<_>>());
    }
}
