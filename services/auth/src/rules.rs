//! Which permission each method needs, by its path.
//!
//! Invariant: a rule exists for every method of ours, and each names a permission this version knows;
//! otherwise the server does not start.

use std::collections::HashMap;

use domain::access::Permission;
use rpc::policy::PolicyTable;
use thiserror::Error;

/// A method whose options name a permission that does not exist.
#[derive(Debug, Error)]
#[error("{method} needs the permission {permission:?}, which does not exist")]
pub struct UnknownMethodPermission {
    /// The method's path.
    pub method: String,
    /// What its options say.
    pub permission: String,
}

/// What is asked of the caller of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing.
    Anonymous,
    /// To be known and to have the permission.
    Requires(Permission),
    /// To be a worker, by its certificate.
    Worker,
}

/// Methods of services that are not ours and that anybody may call: load balancers and tools ask them before
/// they log in.
const OPEN: [&str; 5] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.health.v1.Health/List",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The rules of every method.
#[derive(Debug)]
pub(crate) struct Rules(HashMap<String, Rule>);

impl Rules {
    /// Reads the rules out of the policies.
    pub(crate) fn read(policies: &PolicyTable) -> Result<Self, UnknownMethodPermission> {
        let mut rules: HashMap<_, _> = OPEN
            .into_iter()
            .map(|path| (path.to_owned(), Rule::Anonymous))
            .collect();
        for (path, policy) in policies.iter() {
            let rule = match (policy.anonymous, policy.permission.parse()) {
                (true, _) => Rule::Anonymous,
                (false, Ok(Permission::SlotsLease)) => Rule::Worker,
                (false, Ok(permission)) => Rule::Requires(permission),
                (false, Err(_)) => {
                    let (method, permission) = (path.to_owned(), policy.permission.clone());
                    return Err(UnknownMethodPermission { method, permission });
                }
            };
            rules.insert(path.to_owned(), rule);
        }
        Ok(Self(rules))
    }

    /// The rule of the method at `path`; nothing where there is no such method.
    pub(crate) fn get(&self, path: &str) -> Option<Rule> {
        self.0.get(path).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn policies() -> PolicyTable {
        PolicyTable::read(rpc::descriptors::ALL).unwrap()
    }

    #[test]
    fn every_method_needs_a_permission_that_exists() {
        let policies = policies();
        let rules = Rules::read(&policies).unwrap();
        for (path, policy) in policies.iter() {
            let rule = rules.get(path).unwrap();
            assert_eq!(rule == Rule::Anonymous, policy.anonymous, "{path}");
        }
    }

    #[test]
    fn permission_that_does_not_exist_is_an_error_at_start() {
        let mut descriptors = rpc::descriptors::ALL.to_vec();
        let (known, unknown) = (b"users.read", b"users.peek");
        let at = descriptors
            .windows(known.len())
            .position(|window| window == known)
            .unwrap();
        descriptors[at..at + known.len()].copy_from_slice(unknown);
        let error = Rules::read(&PolicyTable::read(&descriptors).unwrap()).unwrap_err();
        assert_eq!(error.permission, "users.peek");
        assert!(
            error.method.starts_with("/pgmoor.user.v1.UserService/"),
            "{}",
            error.method
        );
    }

    #[test]
    fn every_permission_is_needed_by_a_method_or_checked_in_code() {
        let policies = policies();
        let mut used: HashSet<&str> = policies
            .iter()
            .map(|(_, policy)| policy.permission.as_str())
            .collect();
        used.extend(
            Permission::CHECKED_IN_CODE
                .iter()
                .map(|permission| permission.as_str()),
        );
        for permission in Permission::ALL {
            assert!(used.contains(permission.as_str()), "nothing needs {permission}");
        }
    }

    #[test]
    fn only_the_lease_of_slots_is_for_workers() {
        let policies = policies();
        let rules = Rules::read(&policies).unwrap();
        let workers: Vec<_> = policies
            .iter()
            .filter(|(path, _)| rules.get(path) == Some(Rule::Worker))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(workers, ["/pgmoor.pooler.v1.PoolerService/LeaseSlots"]);
    }

    #[test]
    fn unknown_path_has_no_rule() {
        let rules = Rules::read(&policies()).unwrap();
        for path in [
            "",
            "/",
            "/pgmoor.auth.v1.AuthService/loginwithpassword",
            "/pgmoor.auth.v1.AuthService/LoginWithPassword/",
            "//pgmoor.auth.v1.AuthService/LoginWithPassword",
            "/grpc.health.v1.Health/Other",
        ] {
            assert_eq!(rules.get(path), None, "{path}");
        }
    }
}
