//! Where pgmoor may connect to. Everything is denied but what the administrator allows.
//!
//! A name is checked twice: as it is written, and every address it resolves to, right before connecting to that very
//! address. Loopback, link-local (with the cloud metadata services) and the config database stay denied whatever is allowed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::endpoint::{Endpoint, Host};

/// Why a connection is denied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EgressDenied {
    /// Nothing allows it.
    #[error("no rule of the administrator allows {endpoint}")]
    NotAllowed {
        /// Where to.
        endpoint: String,
    },
    /// The address is of a kind that is never allowed.
    #[error("{endpoint} is {kind}, which is never allowed")]
    Forbidden {
        /// Where to.
        endpoint: String,
        /// What it is.
        kind: &'static str,
    },
}

/// A text that is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule:?} is not a host name, *.domain, IP address or network (CIDR), with or without :port")]
pub struct InvalidRule {
    /// What was given.
    pub rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Name(String),
    /// Every name below a domain.
    Below(String),
    Network(IpNet),
}

/// One thing the administrator allows: `db.example.com`, `*.db.example.com`, `10.1.0.0/16`, each with or without `:5432`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    place: Place,
    port: Option<u16>,
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule {
            rule: text.chars().take(120).collect(),
        };
        if let Ok(place) = place(text) {
            return Ok(Self { place, port: None });
        }
        let (rest, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        let rest = rest
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(rest);
        Ok(Self {
            place: place(rest).map_err(|()| invalid())?,
            port: Some(port),
        })
    }
}

fn place(text: &str) -> Result<Place, ()> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(Place::Network(network.trunc()));
    }
    if let Some(domain) = text.strip_prefix("*.") {
        return match domain.parse::<Host>() {
            Ok(Host::Name(name)) => Ok(Place::Below(name)),
            _ => Err(()),
        };
    }
    match text.parse::<Host>() {
        Ok(Host::Name(name)) => Ok(Place::Name(name)),
        Ok(Host::Address(address)) => Ok(Place::Network(address.into())),
        Err(_) => Err(()),
    }
}

impl Rule {
    fn allows_name(&self, name: &str, port: u16) -> bool {
        self.allows_port(port)
            && match &self.place {
                Place::Name(allowed) => allowed == name,
                Place::Below(domain) => name
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                Place::Network(_) => false,
            }
    }

    fn allows_address(&self, address: SocketAddr) -> bool {
        self.allows_port(address.port())
            && matches!(&self.place, Place::Network(network) if network.contains(&address.ip()))
    }

    fn allows_port(&self, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
    }
}

/// What the administrator allows, and what is denied in spite of it.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    /// What is allowed.
    pub rules: Vec<Rule>,
    /// Ports on this machine's loopback that are allowed although loopback never is: the private server of `pgmoor up`, and
    /// test servers. A rule must allow the address as well.
    pub loopback_ports: BTreeSet<u16>,
    /// The config database: addresses that are denied on their port.
    pub config_database: Vec<SocketAddr>,
}

impl EgressPolicy {
    /// Checks an endpoint as it is written. A name that passes is checked again by [`Self::check_address`] once resolved.
    ///
    /// # Errors
    /// Where no connection to it will be allowed, whatever its name resolves to.
    pub fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), EgressDenied> {
        let port = endpoint.port.get();
        match &endpoint.host {
            Host::Address(address) => self.check_address(endpoint, SocketAddr::new(*address, port)),
            Host::Name(name) => {
                let by_name = self.rules.iter().any(|rule| rule.allows_name(name, port));
                // Which network the name resolves to is only known when it is resolved.
                let by_network = self
                    .rules
                    .iter()
                    .any(|rule| matches!(rule.place, Place::Network(_)) && rule.allows_port(port));
                if by_name || by_network {
                    Ok(())
                } else {
                    Err(EgressDenied::NotAllowed {
                        endpoint: endpoint.to_string(),
                    })
                }
            }
        }
    }

    /// Checks one address that an endpoint resolved to. Connect to that address and to no other.
    ///
    /// # Errors
    /// Where the address is of a forbidden kind or nothing allows it.
    pub fn check_address(&self, endpoint: &Endpoint, address: SocketAddr) -> Result<(), EgressDenied> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if let Some(kind) = self.forbidden_kind(address) {
            return Err(EgressDenied::Forbidden {
                endpoint: describe(endpoint, address),
                kind,
            });
        }
        let by_name = match &endpoint.host {
            Host::Name(name) => self
                .rules
                .iter()
                .any(|rule| rule.allows_name(name, address.port())),
            Host::Address(_) => false,
        };
        if by_name || self.rules.iter().any(|rule| rule.allows_address(address)) {
            Ok(())
        } else {
            Err(EgressDenied::NotAllowed {
                endpoint: describe(endpoint, address),
            })
        }
    }

    fn forbidden_kind(&self, address: SocketAddr) -> Option<&'static str> {
        let ip = address.ip();
        let is_config_database =
            |denied: &SocketAddr| denied.port() == address.port() && denied.ip().to_canonical() == ip;
        if self.config_database.iter().any(is_config_database) {
            return Some("the config database");
        }
        if ip.is_loopback() {
            return (!self.loopback_ports.contains(&address.port())).then_some("loopback");
        }
        match ip {
            IpAddr::V4(ip) if ip.is_unspecified() || ip.octets()[0] == 0 => Some("an unspecified address"),
            IpAddr::V4(ip) if ip.is_link_local() => Some("link-local or a metadata service"),
            IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => Some("multicast or broadcast"),
            IpAddr::V6(ip) if ip.is_unspecified() => Some("an unspecified address"),
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("link-local or a metadata service"),
            // The IPv6 address of a large provider's metadata service.
            IpAddr::V6(ip) if ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => {
                Some("link-local or a metadata service")
            }
            IpAddr::V6(ip) if ip.is_multicast() => Some("multicast or broadcast"),
            // Addresses that carry an IPv4 address a gateway would unpack (RFC 6052, RFC 3056).
            IpAddr::V6(ip)
                if ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || ip.segments()[0] == 0x2002 =>
            {
                Some("an IPv4 address in disguise")
            }
            _ => None,
        }
    }
}

/// The name as given and what it resolved to, for the one who must find out why.
fn describe(endpoint: &Endpoint, address: SocketAddr) -> String {
    struct Both<'a>(&'a Endpoint, SocketAddr);
    impl fmt::Display for Both<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0.host {
                Host::Name(_) => write!(f, "{} ({})", self.0, self.1.ip()),
                Host::Address(_) => write!(f, "{}", self.0),
            }
        }
    }
    Both(endpoint, address).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str]) -> EgressPolicy {
        EgressPolicy {
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            loopback_ports: BTreeSet::from([6000]),
            config_database: vec!["10.9.9.9:5432".parse().unwrap()],
        }
    }

    fn endpoint(host: &str, port: i64) -> Endpoint {
        Endpoint::new(host, port).unwrap()
    }

    fn resolved(policy: &EgressPolicy, host: &str, address: &str) -> Result<(), EgressDenied> {
        let address: SocketAddr = address.parse().unwrap();
        policy.check_address(&endpoint(host, i64::from(address.port())), address)
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let policy = EgressPolicy::default();
        assert!(matches!(
            policy.check_endpoint(&endpoint("db.example.com", 0)),
            Err(EgressDenied::NotAllowed { .. })
        ));
        assert!(matches!(
            resolved(&policy, "10.0.0.1", "10.0.0.1:5432"),
            Err(EgressDenied::NotAllowed { .. })
        ));
    }

    #[test]
    fn rules_allow_names_domains_networks_and_ports() {
        let policy = policy(&[
            "db.example.com",
            "*.prod.example.com:5432",
            "10.1.0.0/16",
            "192.0.2.7:6432",
            "[2001:db8::]:5432",
        ]);
        for (host, address) in [
            ("db.example.com", "203.0.113.1:9999"),
            ("a.prod.example.com", "203.0.113.1:5432"),
            ("elsewhere.example", "10.1.2.3:1"),
            ("10.1.2.3", "10.1.2.3:5432"),
            ("192.0.2.7", "192.0.2.7:6432"),
            ("2001:db8::", "[2001:db8::]:5432"),
        ] {
            assert_eq!(resolved(&policy, host, address), Ok(()), "{host} {address}");
        }
        for (host, address) in [
            ("xdb.example.com", "203.0.113.1:5432"),
            ("prod.example.com", "203.0.113.1:5432"),
            ("evilprod.example.com", "203.0.113.1:5432"),
            ("a.prod.example.com", "203.0.113.1:6432"),
            ("192.0.2.7", "192.0.2.7:5432"),
            ("elsewhere.example", "10.2.0.1:5432"),
        ] {
            assert!(
                matches!(
                    resolved(&policy, host, address),
                    Err(EgressDenied::NotAllowed { .. })
                ),
                "{host} {address}"
            );
        }
    }

    #[test]
    fn some_addresses_are_never_allowed() {
        let policy = policy(&["0.0.0.0/0", "::/0", "db.example.com"]);
        for address in [
            "127.0.0.1:5432",
            "[::1]:5432",
            "[::ffff:127.0.0.1]:5432",
            "169.254.169.254:80",
            "[fd00:ec2::254]:80",
            "[fe80::1]:5432",
            "0.0.0.0:5432",
            "[::]:5432",
            "224.0.0.1:5432",
            "[64:ff9b::7f00:1]:5432",
            "[2002:7f00:1::]:5432",
            "10.9.9.9:5432",
        ] {
            assert!(
                matches!(
                    resolved(&policy, "db.example.com", address),
                    Err(EgressDenied::Forbidden { .. })
                ),
                "{address}"
            );
        }
        assert_eq!(resolved(&policy, "db.example.com", "10.9.9.9:5433"), Ok(()));
        assert_eq!(resolved(&policy, "127.0.0.1", "127.0.0.1:6000"), Ok(()));
    }

    #[test]
    fn loopback_port_still_needs_a_rule() {
        let policy = policy(&["db.example.com"]);
        assert!(matches!(
            resolved(&policy, "127.0.0.1", "127.0.0.1:6000"),
            Err(EgressDenied::NotAllowed { .. })
        ));
    }
}
