//! `[egress]`: where instances may be. Nothing is allowed until it is listed here.

use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

/// Keys of `[egress]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Hosts that instances may be on: names (`db.example.com`), everything below a domain
    /// (`*.db.example.com`), networks (`10.1.0.0/16`), each with or without a port (`:5432`). Loopback,
    /// link-local addresses and the config database stay denied. Default: none.
    #[serde(deserialize_with = "values::list")]
    pub allow: Vec<String>,
    /// Ports on this machine's loopback where instances may be although loopback is denied; `allow` must list
    /// the address as well. Meant for a single machine. Default: none.
    #[serde(deserialize_with = "values::numbers")]
    pub loopback_ports: Vec<u16>,
}

impl Egress {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let empty = self.allow.iter().any(|rule| rule.trim().is_empty());
        let problem = || Problem::invalid("egress.allow", "must not have an empty entry");
        empty.then(problem).into_iter().collect()
    }
}
