//! What a user may do with one server, and by which rule.
//!
//! Invariant: what no rule gives is denied. A rule only gives; what the server's policy takes it takes from everybody. So
//! one more binding or grant never takes anything away.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::{
    Access, Databases, Elevated, Elevation, GrantLimits, Permission, PermissionSet, Role, RoleName,
    ServerPolicy,
};
use crate::id::{ElevationId, GrantId, GroupId, RoleBindingId, UserId};
use crate::name::Identifier;

/// Permissions on a server: what ownership, a binding or a grant may give. All others are pgmoor's own.
pub const SERVER_PERMISSIONS: PermissionSet = PermissionSet::of(&[
    Permission::ServersRead,
    Permission::ServersUpdate,
    Permission::ServersDelete,
    Permission::ServersUse,
    Permission::SessionsUse,
    Permission::PoliciesUpdate,
    Permission::GrantsRead,
    Permission::GrantsUpdate,
    Permission::OperationsRead,
    Permission::OperationsCancel,
    Permission::BackupsCreate,
    Permission::BackupsRead,
    Permission::BackupsDelete,
    Permission::BackupsRestore,
    Permission::ElevationsRequest,
    Permission::ElevationsApprove,
]);

/// What the owner of a server may do with it: what a member may with what is theirs, and let others write for a while.
pub const OWNED: PermissionSet = Role::Member
    .permissions()
    .intersection(SERVER_PERMISSIONS)
    .union(PermissionSet::of(&[Permission::ElevationsApprove]));

/// Permissions by which something reaches the server itself, in one of its databases.
pub const USE: PermissionSet = PermissionSet::of(&[
    Permission::ServersUse,
    Permission::SessionsUse,
    Permission::BackupsCreate,
    Permission::BackupsRestore,
]);

/// What a grant gives: use of the server's credential, and no sight of it, nor of who else has a grant.
pub const GRANTED: PermissionSet = PermissionSet::of(&[
    Permission::ServersRead,
    Permission::ServersUse,
    Permission::SessionsUse,
    Permission::BackupsCreate,
    Permission::BackupsRestore,
    Permission::ElevationsRequest,
]);

/// How the server is the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// It is not.
    None,
    /// They own it.
    User,
    /// A group they are in owns it.
    Group(GroupId),
}

/// A binding of a role to the user or a group of theirs, whose scope holds the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The binding.
    pub id: RoleBindingId,
    /// The role.
    pub role: RoleName,
    /// The role's permissions.
    pub permissions: PermissionSet,
}

/// A grant on the server to the user or a group of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The grant.
    pub id: GrantId,
    /// What it lets them do.
    pub access: Access,
    /// The databases it is for; empty for all that the policy allows.
    pub databases: BTreeSet<Identifier>,
    /// What it narrows.
    pub limits: GrantLimits,
    /// From then on it gives nothing.
    pub expire_time: Option<OffsetDateTime>,
}

impl Grant {
    fn covers(&self, database: Option<&Identifier>) -> bool {
        database.is_none_or(|database| self.databases.is_empty() || self.databases.contains(database))
    }

    /// Whether it gives nothing any more.
    #[must_use]
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.expire_time.is_some_and(|expire| expire <= now)
    }
}

/// All that bears on what a user may do with a server, as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The user.
    pub user: UserId,
    /// True for a user who may not log in.
    pub disabled: bool,
    /// Whether it is theirs.
    pub ownership: Ownership,
    /// Roles that are bound to them there.
    pub bindings: Vec<Bound>,
    /// Grants they have there.
    pub grants: Vec<Grant>,
    /// Elevations of theirs there that were approved.
    pub elevations: Vec<Elevation>,
    /// What the server allows.
    pub policy: ServerPolicy,
    /// The policy revision they were read at.
    pub revision: i64,
    /// When they were read, on the config database's clock.
    pub read_time: OffsetDateTime,
}

/// A rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The user is disabled.
    Disabled,
    /// The user owns the server.
    Owner,
    /// A group they are in owns the server.
    OwnerGroup(GroupId),
    /// A role is bound to them.
    Binding(RoleBindingId, RoleName),
    /// They have a grant.
    Grant(GrantId),
    /// They had a grant.
    ExpiredGrant(GrantId),
    /// A grant is for other databases.
    GrantForOthers(GrantId),
    /// They may write for a while.
    Elevation(ElevationId),
    /// They might write for a while.
    ExpiredElevation(ElevationId),
    /// An elevation is for other databases.
    ElevationForOthers(ElevationId),
    /// The server's policy lets nobody write for a while.
    PolicyElevations,
    /// The server's policy does not allow the database.
    PolicyDatabases,
    /// The server's policy allows to read only.
    PolicyCeiling,
    /// The server's policy allows no backups.
    PolicyBackups,
    /// The server's policy allows no restores.
    PolicyRestores,
    /// Nothing else gives anything.
    Default,
}

/// What a rule gives or takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rule.
    pub rule: Rule,
    /// What it gives.
    pub gives: PermissionSet,
    /// What it takes.
    pub takes: PermissionSet,
}

/// Why something is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The server is as good as missing.
    Hidden,
    /// They may see it, and not do this.
    Missing,
    /// They may do this, and not in that database.
    Database,
    /// They might do this, if the server's policy let anybody.
    Policy,
}

/// What a user may do with a server, or with one database there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What they may do.
    pub permissions: PermissionSet,
    /// How far, where they may use it.
    pub access: Access,
    /// How far it would be without elevations.
    pub unelevated: Access,
    /// The elevation that lets them write, or would if nothing else did.
    pub elevated: Option<Elevated>,
    /// Where.
    pub databases: Databases,
    /// What is narrowed for them.
    pub limits: GrantLimits,
    /// When a grant or the elevation that counted here gives nothing any more, the first of them.
    pub expire_time: Option<OffsetDateTime>,
    /// Every rule that was looked at, in order.
    pub reasons: Vec<Reason>,
    /// The revision of what was decided upon.
    pub revision: i64,
    given: PermissionSet,
    covered: PermissionSet,
}

impl Decision {
    /// Whether they may.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, permission: Permission) -> Result<(), Denial> {
        if self.permissions.contains(permission) {
            Ok(())
        } else if !self.given.contains(Permission::ServersRead) {
            Err(Denial::Hidden)
        } else if !self.given.contains(permission) {
            Err(Denial::Missing)
        } else if !self.covered.contains(permission) {
            Err(Denial::Database)
        } else {
            Err(Denial::Policy)
        }
    }
}

/// What one rule gives in the database.
struct Given {
    permissions: PermissionSet,
    access: Access,
    databases: Databases,
    limits: GrantLimits,
}

impl Given {
    fn everywhere(permissions: PermissionSet) -> Self {
        Self {
            permissions,
            access: Access::ReadWrite,
            databases: Databases::All,
            limits: GrantLimits::NONE,
        }
    }

    fn by_grant(grant: &Grant) -> Self {
        let databases = match grant.databases.is_empty() {
            true => Databases::All,
            false => Databases::Only(grant.databases.clone()),
        };
        let restore = PermissionSet::of(&[Permission::BackupsRestore]);
        Self {
            permissions: match grant.access {
                Access::ReadOnly => GRANTED.minus(restore),
                Access::ReadWrite => GRANTED,
            },
            access: grant.access,
            databases,
            limits: grant.limits,
        }
    }
}

/// Decides. Without a database: about the server as such.
#[must_use]
pub fn decide(facts: &ServerFacts, database: Option<&Identifier>, now: OffsetDateTime) -> Decision {
    let mut reasons = Vec::new();
    let mut sources = Vec::new();
    let mut given = PermissionSet::NONE;
    let mut expire_time = None;
    if facts.disabled {
        reasons.push(taking(Rule::Disabled, SERVER_PERMISSIONS));
    } else {
        let owner = match facts.ownership {
            Ownership::None => None,
            Ownership::User => Some(Rule::Owner),
            Ownership::Group(group) => Some(Rule::OwnerGroup(group)),
        };
        if let Some(rule) = owner {
            sources.push(note(&mut reasons, rule, Given::everywhere(OWNED)));
        }
        for bound in &facts.bindings {
            let permissions = bound.permissions.intersection(SERVER_PERMISSIONS);
            let rule = Rule::Binding(bound.id, bound.role);
            sources.push(note(&mut reasons, rule, Given::everywhere(permissions)));
        }
        for grant in &facts.grants {
            if grant.has_expired(now) {
                reasons.push(taking(Rule::ExpiredGrant(grant.id), PermissionSet::NONE));
                continue;
            }
            let gift = Given::by_grant(grant);
            if !grant.covers(database) {
                given = given.union(gift.permissions);
                reasons.push(Reason {
                    rule: Rule::GrantForOthers(grant.id),
                    gives: gift.permissions.minus(USE),
                    takes: PermissionSet::NONE,
                });
                sources.push(Given {
                    permissions: gift.permissions.minus(USE),
                    ..gift
                });
                continue;
            }
            expire_time = earlier(expire_time, grant.expire_time);
            sources.push(note(&mut reasons, Rule::Grant(grant.id), gift));
        }
    }
    let held = sources
        .iter()
        .fold(PermissionSet::NONE, |held, source| held.union(source.permissions));
    given = given.union(held);
    let denied_database = database.is_some_and(|database| !facts.policy.allows_database(database));
    let covered = if denied_database {
        reasons.push(taking(Rule::PolicyDatabases, USE));
        held.minus(USE)
    } else {
        held
    };
    // Who may not use the database at all gets nothing by it.
    let elevated = match covered.contains(Permission::SessionsUse) {
        true => elevated(facts, database, now, &mut reasons),
        false => None,
    };
    expire_time = earlier(expire_time, elevated.map(|elevated| elevated.until));
    let permissions = covered.minus(forbidden(&facts.policy, elevated.is_some(), &mut reasons));
    reasons.push(taking(Rule::Default, PermissionSet::NONE));
    let users = || {
        let uses = |source: &&Given| source.permissions.contains(Permission::SessionsUse);
        sources.iter().filter(uses)
    };
    let access = users().map(|source| source.access).max();
    let limits = users().map(|source| source.limits).reduce(GrantLimits::loosest);
    let databases = users()
        .map(|source| source.databases.clone())
        .reduce(Databases::union);
    let databases = databases.unwrap_or(Databases::Only(BTreeSet::new()));
    let unelevated = access.unwrap_or(Access::ReadOnly).min(facts.policy.ceiling);
    Decision {
        permissions,
        access: match elevated {
            Some(_) => Access::ReadWrite,
            None => unelevated,
        },
        unelevated,
        elevated,
        databases: databases.within(&facts.policy),
        limits: limits.unwrap_or_default(),
        expire_time,
        reasons,
        revision: facts.revision,
        given,
        covered,
    }
}

/// The elevation that counts in the database, of several the last to expire.
fn elevated(
    facts: &ServerFacts,
    database: Option<&Identifier>,
    now: OffsetDateTime,
    reasons: &mut Vec<Reason>,
) -> Option<Elevated> {
    let mut counts = None;
    for elevation in &facts.elevations {
        let rule = if elevation.has_expired(now) {
            Rule::ExpiredElevation(elevation.id)
        } else if facts.policy.max_elevation.is_none() {
            Rule::PolicyElevations
        } else if !elevation.covers(database) {
            Rule::ElevationForOthers(elevation.id)
        } else {
            let this = Elevated {
                by: elevation.id,
                until: elevation.expire_time,
            };
            counts = counts
                .filter(|other: &Elevated| other.until >= this.until)
                .or(Some(this));
            Rule::Elevation(elevation.id)
        };
        reasons.push(taking(rule, PermissionSet::NONE));
    }
    counts
}

/// What the policy takes from everybody; its ceiling not from who is elevated.
fn forbidden(policy: &ServerPolicy, is_elevated: bool, reasons: &mut Vec<Reason>) -> PermissionSet {
    let backups = PermissionSet::of(&[Permission::BackupsCreate]);
    let restores = PermissionSet::of(&[Permission::BackupsRestore]);
    let mut forbidden = PermissionSet::NONE;
    let mut take = |rule, set| {
        reasons.push(taking(rule, set));
        forbidden = forbidden.union(set);
    };
    if policy.ceiling == Access::ReadOnly && !is_elevated {
        take(Rule::PolicyCeiling, restores);
    }
    if !policy.backups {
        take(Rule::PolicyBackups, backups);
    }
    if !policy.restores {
        take(Rule::PolicyRestores, restores);
    }
    forbidden
}

fn note(reasons: &mut Vec<Reason>, rule: Rule, given: Given) -> Given {
    reasons.push(Reason {
        rule,
        gives: given.permissions,
        takes: PermissionSet::NONE,
    });
    given
}

fn taking(rule: Rule, takes: PermissionSet) -> Reason {
    Reason {
        rule,
        gives: PermissionSet::NONE,
        takes,
    }
}

fn earlier(one: Option<OffsetDateTime>, other: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
