//! From names to the addresses that may be connected to.
//!
//! Invariant: what comes out was allowed address by address; connect to these addresses and resolve no name again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use domain::egress::{EgressDenied, EgressPolicy};
use domain::endpoint::{Destination, Endpoint, Host, TlsPolicy};
use thiserror::Error;

/// Longest wait for a name server, over all names.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a destination has no addresses to connect to.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The administrator does not allow it.
    #[error(transparent)]
    Denied(#[from] EgressDenied),
    /// No endpoint's name has an address.
    #[error("{endpoint} cannot be resolved")]
    Unknown {
        /// The last endpoint that was tried.
        endpoint: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An endpoint and one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedEndpoint {
    /// As it was configured: the name a certificate must be for.
    pub endpoint: Endpoint,
    /// Where to connect.
    pub address: SocketAddr,
}

/// A destination whose addresses are known and allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    endpoints: Vec<ResolvedEndpoint>,
    tls: TlsPolicy,
}

impl Resolved {
    /// Where to connect, in the order to try; at least one.
    #[must_use]
    pub fn endpoints(&self) -> &[ResolvedEndpoint] {
        &self.endpoints
    }

    /// What connections demand of TLS.
    #[must_use]
    pub const fn tls(&self) -> &TlsPolicy {
        &self.tls
    }
}

/// Resolves a destination and checks every address. One address that is denied denies the destination: a name that leads to
/// an allowed and to a forbidden place is an attempt, or a mistake to be told about.
///
/// # Errors
/// Where an address is denied, or no endpoint has one.
pub async fn resolve(destination: &Destination, policy: &EgressPolicy) -> Result<Resolved, ResolveError> {
    let mut endpoints = Vec::new();
    let mut failed = None;
    for endpoint in destination.endpoints() {
        policy.check_endpoint(endpoint)?;
        let addresses = match addresses(endpoint).await {
            Ok(addresses) => addresses,
            Err(source) => {
                let endpoint = endpoint.to_string();
                failed = Some(ResolveError::Unknown { endpoint, source });
                continue;
            }
        };
        for address in addresses {
            policy.check_address(endpoint, address)?;
            let endpoint = endpoint.clone();
            endpoints.push(ResolvedEndpoint { endpoint, address });
        }
    }
    match failed {
        Some(error) if endpoints.is_empty() => Err(error),
        _ => Ok(Resolved {
            endpoints,
            tls: destination.tls().clone(),
        }),
    }
}

async fn addresses(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let port = endpoint.port.get();
    let name = match &endpoint.host {
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, port)]),
        Host::Name(name) => name.as_str(),
    };
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, port)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}
