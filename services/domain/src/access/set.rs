//! Sets of permissions.

use super::Permission;

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PermissionSet(u64);

impl PermissionSet {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set of these.
    #[must_use]
    pub const fn of(permissions: &[Permission]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < permissions.len() {
            bits |= bit(permissions[at]);
            at += 1;
        }
        Self(bits)
    }

    /// Whether the permission is in it.
    #[must_use]
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }

    /// What is in one of the two.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one alone.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the other one has all of it.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it, in the order of the permissions.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .iter()
            .copied()
            .filter(move |permission| self.contains(*permission))
    }
}

const fn bit(permission: Permission) -> u64 {
    1 << permission as u8
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let bits = permissions.into_iter().fold(0, |bits, one| bits | bit(one));
        Self(bits)
    }
}

impl std::fmt::Debug for PermissionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Permission::as_str))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_permissions_fit_and_are_told_apart() {
        assert!(Permission::ALL.len() <= 64);
        let all: PermissionSet = Permission::ALL.iter().copied().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), Permission::ALL);
        for permission in Permission::ALL {
            let one = PermissionSet::of(&[*permission]);
            assert_eq!(one.iter().collect::<Vec<_>>(), [*permission]);
            assert!(!all.minus(one).contains(*permission));
        }
    }
}
