//! Who may do what. [`allows`] says whether a caller may do something at all; [`decide`] says what a user may do with one
//! server.
//!
//! Invariant: what nothing gives is denied. [`Permission::SlotsLease`] and [`Permission::InstancesOwn`] are given to no
//! user.

mod binding;
mod decided_by;
mod decision;
mod elevation;
mod grant_limits;
mod policy;
mod set;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use time::OffsetDateTime;

use crate::id::{ApiTokenId, LoginId, UserId};
use crate::name::Identifier;

pub use binding::{Principal, RoleName, Scope};
pub use decided_by::DecidedBy;
pub use decision::{
    Bound, Decision, Denial, GRANTED, Grant, OWNED, Ownership, Reason, Rule, SERVER_PERMISSIONS, ServerFacts,
    USE, decide,
};
pub use elevation::{Elevated, Elevation, MAX_ELEVATION, MAX_REASON_CHARS, MIN_ELEVATION};
pub use grant_limits::{GrantLimits, NARROWED};
pub use policy::{MAX_DATABASES, MAX_ENVIRONMENT_CHARS, ServerPolicy, Tenancy};
pub use set::PermissionSet;

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
    /// See pools, clients, backends and budgets: one's own, or all of them for those who have it everywhere.
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
    /// Change what a server allows.
    PoliciesUpdate = "policies.update",
    /// See the grants on a server.
    GrantsRead = "grants.read",
    /// Make, change and revoke grants on a server.
    GrantsUpdate = "grants.update",
    /// See groups one is not in (checked in code, the methods also serve one's own).
    GroupsRead = "groups.read",
    /// Make, change and delete groups, and say who is in them.
    GroupsUpdate = "groups.update",
    /// See roles and to whom they are bound.
    RolesRead = "roles.read",
    /// Make, change and delete roles, and bind them.
    RolesUpdate = "roles.update",
    /// Read the audit trail.
    AuditRead = "audit.read",
    /// Ask to write for a while where one may only read; see and give back what one asked for.
    ElevationsRequest = "elevations.request",
    /// Let others write for a while (checked in code, the methods also serve who asked).
    ElevationsApprove = "elevations.approve",
    /// Have explained what others may do (checked in code, the method also explains what oneself may).
    AccessExplain = "access.explain",
    /// Hold slots of an instance's connection budget for children of a worker. Shown by a worker's
    /// certificate only.
    SlotsLease = "slots.lease",
    /// Own an instance: open connections to it. Shown by a pooler's certificate only.
    InstancesOwn = "instances.own",
}

impl Permission {
    /// The permissions that no method states in its options, because code asks for them beside another one.
    pub const CHECKED_IN_CODE: &'static [Self] = &[
        Self::InstancesCreate,
        Self::GroupsRead,
        Self::ElevationsApprove,
        Self::AccessExplain,
    ];
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A built-in role: a set of permissions that is given as a whole. Every user is a member; the others are bound to users
/// and groups, or are a user's as `administrator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Works with what is theirs.
    Member,
    /// Looks after instances and pools.
    Operator,
    /// Sees, and does nothing.
    Auditor,
    /// Administers pgmoor itself.
    Administrator,
}

impl Role {
    /// Every built-in role.
    pub const ALL: [Self; 4] = [Self::Member, Self::Operator, Self::Auditor, Self::Administrator];

    /// Its name, as in `roles/{role}`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Administrator => "administrator",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Whether the role has the permission.
    #[must_use]
    pub const fn grants(self, permission: Permission) -> bool {
        match permission {
            Permission::SlotsLease | Permission::InstancesOwn => false,
            Permission::UsersCreate
            | Permission::UsersUpdate
            | Permission::GroupsUpdate
            | Permission::RolesUpdate => matches!(self, Self::Administrator),
            Permission::InstancesCreate
            | Permission::InstancesUpdate
            | Permission::PoolsUpdate
            | Permission::ElevationsApprove => matches!(self, Self::Operator | Self::Administrator),
            Permission::UsersRead | Permission::GroupsRead | Permission::RolesRead => {
                matches!(self, Self::Operator | Self::Auditor | Self::Administrator)
            }
            Permission::AuditRead | Permission::AccessExplain => {
                matches!(self, Self::Auditor | Self::Administrator)
            }
            Permission::AccountUse
            | Permission::SettingsRead
            | Permission::InstancesRead
            | Permission::PoolsRead
            | Permission::ServersRead
            | Permission::GrantsRead
            | Permission::OperationsRead
            | Permission::BackupsRead
            | Permission::FilesRead => true,
            Permission::SettingsUpdate
            | Permission::ServersCreate
            | Permission::ServersUpdate
            | Permission::ServersDelete
            | Permission::ServersUse
            | Permission::SessionsUse
            | Permission::PoliciesUpdate
            | Permission::GrantsUpdate
            | Permission::OperationsCancel
            | Permission::BackupsCreate
            | Permission::BackupsDelete
            | Permission::BackupsRestore
            | Permission::ElevationsRequest
            | Permission::FilesWrite => matches!(self, Self::Member | Self::Administrator),
        }
    }

    /// Its permissions.
    #[must_use]
    pub const fn permissions(self) -> PermissionSet {
        let mut permissions = PermissionSet::NONE;
        let mut at = 0;
        while at < Permission::ALL.len() {
            if self.grants(Permission::ALL[at]) {
                permissions = permissions.union(PermissionSet::of(&[Permission::ALL[at]]));
            }
            at += 1;
        }
        permissions
    }
}

/// How far somebody may go in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// What somebody gets who asks for `wish` and may have this. Nothing asked for is all there may be.
    #[must_use]
    pub fn limit(self, wish: Option<Self>) -> Self {
        wish.map_or(self, |wish| wish.min(self))
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
        }
    }
}

impl FromStr for Access {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::ReadOnly, Self::ReadWrite];
        all.into_iter().find(|access| access.as_str() == text).ok_or(())
    }
}

/// Some databases of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// All of them.
    All,
    /// These.
    Only(BTreeSet<Identifier>),
}

impl Databases {
    /// Whether the database is among them.
    #[must_use]
    pub fn contains(&self, database: &Identifier) -> bool {
        match self {
            Self::All => true,
            Self::Only(databases) => databases.contains(database),
        }
    }

    /// Whether the others are at least as many.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, Self::Only(_)) => false,
            (Self::Only(some), Self::Only(others)) => some.is_subset(others),
        }
    }

    fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut some), Self::Only(others)) => {
                some.extend(others);
                Self::Only(some)
            }
            _ => Self::All,
        }
    }

    fn within(self, policy: &ServerPolicy) -> Self {
        match (self, &policy.tenancy) {
            (databases, Tenancy::Single) => databases,
            (Self::All, Tenancy::Multi { databases }) => Self::Only(databases.clone()),
            (Self::Only(some), Tenancy::Multi { databases }) => {
                Self::Only(some.intersection(databases).cloned().collect())
            }
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
    /// What roles that are bound to them or to their groups everywhere let them do.
    pub everywhere: PermissionSet,
    /// How the user was recognised.
    pub credential: CredentialKind,
    /// The provider that the login was begun with; none for a password and an API token.
    pub provider: Option<String>,
    /// When the credential was issued, on the config database's clock: a revocation of the user voids what
    /// came before it.
    pub issued: OffsetDateTime,
    /// When the credential expires; `None` where it lives until it is revoked.
    pub expires: Option<OffsetDateTime>,
    /// By which rules the call is decided.
    pub decided_by: DecidedBy,
}

impl Caller {
    /// Whether they may do it wherever it can be done, and not only with what is theirs. Of a server nobody may anything
    /// by being an administrator: [`decide`] knows who may.
    #[must_use]
    pub fn may_everywhere(&self, permission: Permission) -> bool {
        self.everywhere.contains(permission)
            || self.administrator
                && Role::Administrator.grants(permission)
                && !SERVER_PERMISSIONS.contains(permission)
    }

    /// Whether they may give all of it to others, or take part in it: what nobody has they cannot pass on. Administrators
    /// may give anything, also what they have not taken for themselves.
    #[must_use]
    pub fn may_give(&self, permissions: PermissionSet) -> bool {
        self.administrator || permissions.is_within(self.everywhere)
    }
}

/// Whether the caller may do it at all: with what is theirs as any member, or everywhere.
#[must_use]
pub fn allows(caller: &Caller, permission: Permission) -> bool {
    Role::Member.grants(permission) || caller.may_everywhere(permission)
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
            everywhere: PermissionSet::NONE,
            credential: CredentialKind::AccessToken {
                login: LoginId::generate(&random),
            },
            provider: None,
            issued: OffsetDateTime::UNIX_EPOCH,
            expires: None,
            decided_by: DecidedBy::default(),
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
    fn administrator_has_every_permission_but_those_of_processes_and_of_owners() {
        let others = [
            Permission::SlotsLease,
            Permission::InstancesOwn,
            // Theirs on servers of others where they bind a role to themselves.
            Permission::ElevationsApprove,
        ];
        for permission in Permission::ALL {
            assert_eq!(
                allows(&caller(true), *permission),
                !others.contains(permission),
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
            Permission::GroupsRead,
            Permission::GroupsUpdate,
            Permission::RolesRead,
            Permission::RolesUpdate,
            Permission::AuditRead,
            Permission::ElevationsApprove,
            Permission::AccessExplain,
            Permission::SlotsLease,
            Permission::InstancesOwn,
        ];
        assert_eq!(denied, wanted.iter().collect::<Vec<_>>());
    }

    #[test]
    fn auditor_reads_and_does_nothing_else() {
        for permission in Permission::ALL {
            let reads = permission.as_str().ends_with(".read")
                || [Permission::AccountUse, Permission::AccessExplain].contains(permission);
            assert_eq!(Role::Auditor.grants(*permission), reads, "{permission}");
        }
    }

    #[test]
    fn every_built_in_role_sees_servers_where_it_is_bound() {
        for role in Role::ALL {
            assert!(role.grants(Permission::ServersRead), "{role:?}");
            assert_eq!(Role::named(role.as_str()), Some(role));
        }
    }

    #[test]
    fn administrator_of_pgmoor_has_no_say_over_servers_of_others() {
        for permission in SERVER_PERMISSIONS.iter() {
            assert!(!caller(true).may_everywhere(permission), "{permission}");
        }
        assert!(caller(true).may_everywhere(Permission::PoolsRead));
        assert!(!caller(false).may_everywhere(Permission::PoolsRead));
    }

    #[test]
    fn nobody_gives_what_they_do_not_have() {
        let set = PermissionSet::of(&[Permission::UsersRead, Permission::PoolsRead]);
        let mut some = caller(false);
        assert!(!some.may_give(set));
        some.everywhere = Role::Operator.permissions();
        assert!(some.may_give(set) && !some.may_give(Role::Administrator.permissions()));
        assert!(caller(true).may_give(Role::Administrator.permissions()));
    }
}
