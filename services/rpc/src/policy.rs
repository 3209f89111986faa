//! What each method needs, read from the options in the descriptor set.
//!
//! Invariant: a method without options, or with contradicting ones, is an error, and the server that finds one does not start.

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use thiserror::Error;

use crate::options::v1::{AuditMode, MethodPolicy};

/// Why the policy table could not be built. Each is a mistake in `proto/`.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The descriptor set cannot be read.
    #[error("cannot read the descriptor set")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// The options of a method cannot be read.
    #[error("cannot read the options of {method}")]
    Options {
        /// The method's path.
        method: String,
        /// What is wrong with them.
        source: prost::DecodeError,
    },
    /// `options.proto` is not in the set.
    #[error("the descriptor set has no option pgmoor.options.v1.method")]
    NoOption,
    /// A method states no options.
    #[error("{method} has no option pgmoor.options.v1.method")]
    Missing {
        /// The method's path.
        method: String,
    },
    /// A method states no permission and is not anonymous, or states both.
    #[error("{method} must state either a permission or that it is anonymous")]
    Access {
        /// The method's path.
        method: String,
    },
    /// A method does not say what the audit trail keeps.
    #[error("{method} does not state its audit mode")]
    Audit {
        /// The method's path.
        method: String,
    },
}

/// The policy of every method, by its path `/package.Service/Method`.
#[derive(Debug, Clone)]
pub struct PolicyTable(HashMap<String, MethodPolicy>);

impl PolicyTable {
    /// Reads the policies of our own services out of an encoded descriptor set.
    ///
    /// # Errors
    /// Where a method's options are missing or contradict each other.
    pub fn read(descriptors: &[u8]) -> Result<Self, PolicyError> {
        let pool = DescriptorPool::decode(descriptors)?;
        let option = pool
            .get_extension_by_name("pgmoor.options.v1.method")
            .ok_or(PolicyError::NoOption)?;
        let mut policies = HashMap::new();
        for method in pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let options = method.options();
            if !options.has_extension(&option) {
                return Err(PolicyError::Missing { method: path });
            }
            let value = options.get_extension(&option);
            let encoded = value
                .as_message()
                .map(prost::Message::encode_to_vec)
                .unwrap_or_default();
            let policy = MethodPolicy::decode(encoded.as_slice()).map_err(|source| PolicyError::Options {
                method: path.clone(),
                source,
            })?;
            if policy.anonymous != policy.permission.is_empty() {
                return Err(PolicyError::Access { method: path });
            }
            if policy.audit() == AuditMode::Unspecified {
                return Err(PolicyError::Audit { method: path });
            }
            policies.insert(path, policy);
        }
        Ok(Self(policies))
    }

    /// The policy of the method at `path`, or nothing where the path is not one of our methods.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&MethodPolicy> {
        self.0.get(path)
    }

    /// Every method's path and policy.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MethodPolicy)> {
        self.0.iter().map(|(path, policy)| (path.as_str(), policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors;

    #[test]
    fn every_method_states_its_policy() {
        let table = PolicyTable::read(descriptors::ALL).unwrap();
        assert!(table.iter().count() > 50);
    }

    #[test]
    fn few_methods_are_anonymous() {
        let table = PolicyTable::read(descriptors::ALL).unwrap();
        let mut anonymous: Vec<_> = table
            .iter()
            .filter(|(_, policy)| policy.anonymous)
            .map(|(path, _)| path)
            .collect();
        anonymous.sort_unstable();
        assert_eq!(
            anonymous,
            [
                "/pgmoor.auth.v1.AuthService/ExchangeToken",
                "/pgmoor.auth.v1.AuthService/GetLoginOptions",
                "/pgmoor.auth.v1.AuthService/LoginWithPassword",
                "/pgmoor.auth.v1.AuthService/PollLogin",
                "/pgmoor.auth.v1.AuthService/RefreshToken",
                "/pgmoor.auth.v1.AuthService/StartLogin",
            ]
        );
    }

    #[test]
    fn method_without_options_is_refused() {
        // The same set with every method's options cut out.
        let mut set = prost_types::FileDescriptorSet::decode(descriptors::ALL).unwrap();
        for method in set
            .file
            .iter_mut()
            .flat_map(|file| &mut file.service)
            .flat_map(|s| &mut s.method)
        {
            method.options = None;
        }
        assert!(matches!(
            PolicyTable::read(&set.encode_to_vec()),
            Err(PolicyError::Missing { .. })
        ));
    }

    #[test]
    fn pooler_is_not_in_the_public_set() {
        let pool = DescriptorPool::decode(descriptors::PUBLIC).unwrap();
        assert!(
            pool.get_service_by_name("pgmoor.pooler.v1.PoolerService")
                .is_none()
        );
        assert!(pool.get_service_by_name("pgmoor.query.v1.QueryService").is_some());
    }

    #[test]
    fn debug_of_a_login_shows_no_password() {
        let request = crate::auth::v1::LoginWithPasswordRequest {
            username: "alice".into(),
            password: "correct horse".into(),
        };
        assert!(!format!("{request:?}").contains("correct horse"));
    }
}
