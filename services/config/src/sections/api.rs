//! `[api]`: the public gRPC API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

/// Keys of `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address and port to listen on. Default `127.0.0.1:7700`.
    pub listen: SocketAddr,
    /// Certificate chain of the public port, as a PEM file. Without it and `tls_key` the port speaks HTTP/2
    /// in clear text, for a load balancer on a private network that ends TLS. No default.
    pub tls_certificate: Option<PathBuf>,
    /// Private key of `tls_certificate`, as a PEM file. No default.
    pub tls_key: Option<PathBuf>,
    /// How long calls may take to finish once the process was asked to stop. At most 1 h. Default 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// How long an access token lives. 10 s to 1 h. Default 10 min.
    #[serde(deserialize_with = "values::duration")]
    pub access_token_lifetime: Duration,
    /// How long a login lives after it was last refreshed. 1 min to 90 days. Default 14 days.
    #[serde(deserialize_with = "values::duration")]
    pub refresh_token_lifetime: Duration,
    /// How many proxies in front add the address they are called from to `X-Forwarded-For`. At most 16. Default 0: the
    /// header is not read.
    #[serde(deserialize_with = "values::number")]
    pub trusted_hops: u8,
    /// The networks that the last of those proxies is in, such as `10.0.0.0/8`. Default: anywhere.
    #[serde(deserialize_with = "values::list")]
    pub trusted_networks: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7700)),
            tls_certificate: None,
            tls_key: None,
            drain_timeout: Duration::from_secs(30),
            access_token_lifetime: Duration::from_secs(10 * 60),
            refresh_token_lifetime: Duration::from_secs(14 * 24 * 60 * 60),
            trusted_hops: 0,
            trusted_networks: Vec::new(),
        }
    }
}

impl Api {
    /// Certificate and key of the public port, when it speaks TLS.
    #[must_use]
    pub fn tls(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.tls_certificate.as_ref().zip(self.tls_key.as_ref())
    }

    pub(crate) fn validate(&self) -> Vec<Problem> {
        let hour = Duration::from_secs(60 * 60);
        let mut problems = Vec::new();
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            let reason = "and api.tls_key belong together: set both or neither";
            problems.push(Problem::invalid("api.tls_certificate", reason));
        }
        if self.drain_timeout > hour {
            problems.push(Problem::invalid("api.drain_timeout", "must be at most 1h"));
        }
        if !(Duration::from_secs(10)..=hour).contains(&self.access_token_lifetime) {
            problems.push(Problem::invalid(
                "api.access_token_lifetime",
                "must be from 10s to 1h",
            ));
        }
        if !(Duration::from_secs(60)..=90 * 24 * hour).contains(&self.refresh_token_lifetime) {
            problems.push(Problem::invalid(
                "api.refresh_token_lifetime",
                "must be from 1m to 90days",
            ));
        }
        if self.trusted_hops > 16 {
            problems.push(Problem::invalid("api.trusted_hops", "must be at most 16"));
        }
        problems
    }
}
