//! `[api]`: the public gRPC API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::problem::Problem;
use crate::sections::oidc::{Oidc, is_loopback};
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
    /// Address and port of the HTTP port, in clear text, for a balancer that ends TLS: where providers send browsers back, the
    /// public keys of access tokens, and `/healthz`. Needed for logins with a provider. No default.
    pub http_listen: Option<SocketAddr>,
    /// Where browsers reach the HTTP port from outside, such as `https://pgmoor.example.com`: scheme and host, and a port where
    /// there is one. `https://`, or `http://` on loopback. Needed for logins with a provider. No default.
    pub external_url: Option<String>,
    /// The file that `pgmoor admin create-login-key` wrote, the same for all API instances. A key a line: the first seals, all of
    /// them open. Needed for logins with a provider, and to seal the key that signs access tokens. No default.
    pub login_key_file: Option<PathBuf>,
    /// How long calls may take to finish once the process was asked to stop. At most 1 h. Default 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// How long an access token lives. 10 s to 1 h. Default 10 min.
    #[serde(deserialize_with = "values::duration")]
    pub access_token_lifetime: Duration,
    /// How long a login lives after it was last refreshed. 1 min to 90 days. Default 14 days.
    #[serde(deserialize_with = "values::duration")]
    pub refresh_token_lifetime: Duration,
    /// How many proxies in front, at most, add the address they are called from to `X-Forwarded-For`. At most 16; needs
    /// `trusted_networks`. Default 0: the header is not read.
    #[serde(deserialize_with = "values::number")]
    pub trusted_hops: u8,
    /// The networks that those proxies are in, such as `10.0.0.0/8`: only what comes from there is believed. No default.
    #[serde(deserialize_with = "values::list")]
    pub trusted_networks: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7700)),
            tls_certificate: None,
            tls_key: None,
            http_listen: None,
            external_url: None,
            login_key_file: None,
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

    /// The address from outside, without a slash at the end.
    #[must_use]
    pub fn external_origin(&self) -> Option<&str> {
        self.external_url.as_deref().map(|url| url.trim_end_matches('/'))
    }

    /// What logins with a provider need beside the providers.
    pub(crate) fn validate_logins(&self, oidc: &Oidc) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(text) = self.external_origin() {
            let right = Url::parse(text).is_ok_and(|url| {
                let scheme = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
                scheme && url.origin().ascii_serialization() == text
            });
            if !right {
                let reason = "must be https:// and a host, with a port where there is one, and nothing behind it; \
                              http:// is for loopback only";
                problems.push(Problem::invalid("api.external_url", reason));
            }
        }
        if oidc.providers.is_empty() {
            return problems;
        }
        if self.http_listen.is_none() {
            let what = "logins with a provider need the port where it sends browsers back";
            problems.push(Problem::missing("api.http_listen", what));
        }
        if self.external_url.is_none() {
            let what = "logins with a provider need the address of the HTTP port from outside";
            problems.push(Problem::missing("api.external_url", what));
        }
        problems
    }

    /// The login key's file.
    ///
    /// # Errors
    /// When it is not set.
    pub fn require_login_key_file(&self) -> Result<&Path, Problem> {
        self.login_key_file.as_deref().ok_or_else(|| {
            Problem::missing(
                "api.login_key_file",
                "make it with `pgmoor admin create-login-key`",
            )
        })
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
        if self.trusted_hops > 0 && self.trusted_networks.is_empty() {
            let what = "api.trusted_hops believes proxies in networks that are named only, or else anybody would say where \
                        they are; name those of your proxies, such as [\"10.0.0.0/8\"]";
            problems.push(Problem::missing("api.trusted_networks", what));
        }
        if self.trusted_hops > 16 {
            problems.push(Problem::invalid("api.trusted_hops", "must be at most 16"));
        }
        problems
    }
}
