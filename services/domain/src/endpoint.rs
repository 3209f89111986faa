//! Where a PostgreSQL server listens and how a connection to it is protected.
//!
//! A [`Destination`] has one canonical spelling. A sealed password is bound to it, so two destinations that differ in
//! anything that decides who answers must differ in it.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use thiserror::Error;

/// PostgreSQL's own port.
pub const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(5432).unwrap();
/// Most endpoints of one server.
pub const MAX_ENDPOINTS: usize = 8;
/// Most bytes of the certificates a server may bring along.
pub const MAX_ROOT_CERTIFICATES_BYTES: usize = 64 * 1024;

/// Why something is not a destination.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    /// No host at all.
    #[error("a host is missing")]
    NoHost,
    /// A path, as libpq takes it for a Unix socket.
    #[error("a Unix socket is not a host; name the host or address PostgreSQL listens on")]
    Socket,
    /// Neither a name nor an address.
    #[error("{host:?} is neither a host name (RFC 1123) nor an IP address")]
    Host {
        /// What was given, cut to a readable length.
        host: String,
    },
    /// Not a TCP port.
    #[error("{port} is not a port between 1 and 65535")]
    Port {
        /// What was given.
        port: i64,
    },
    /// No endpoint, or too many.
    #[error("1 to {MAX_ENDPOINTS} endpoints are needed, got {got}")]
    Count {
        /// How many were given.
        got: usize,
    },
    /// Certificates beside a mode that would not look at them, or too many of them.
    #[error("root certificates need verify-full and at most 64 KiB of PEM")]
    RootCertificates,
}

/// A host name in lower case, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name to be resolved.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if text.is_empty() {
            return Err(InvalidEndpoint::NoHost);
        }
        if text.starts_with(['/', '@']) {
            return Err(InvalidEndpoint::Socket);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if is_host_name(&name) {
            Ok(Self::Name(name))
        } else {
            Err(InvalidEndpoint::Host {
                host: text.chars().take(80).collect(),
            })
        }
    }
}

/// RFC 1123 with underscores, which private zones use. A name whose last label is a number is refused: resolvers read
/// `127.1` and `0x7f000001` as addresses.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.len() <= 253 && !numeric && name.split('.').all(label)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => fmt::Display::fmt(address, f),
        }
    }
}

/// A host and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: NonZeroU16,
}

impl Endpoint {
    /// Reads an endpoint; port 0 means 5432.
    ///
    /// # Errors
    /// Where host or port are not what they should be.
    pub fn new(host: &str, port: i64) -> Result<Self, InvalidEndpoint> {
        let host = host.parse()?;
        if port == 0 {
            return Ok(Self {
                host,
                port: DEFAULT_PORT,
            });
        }
        let port = u16::try_from(port)
            .ok()
            .and_then(NonZeroU16::new)
            .ok_or(InvalidEndpoint::Port { port })?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// How a connection is protected; libpq's words (PostgreSQL manual, 34.19).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS, without checking who answers.
    Require,
    /// TLS, and the certificate must be valid for the host.
    #[default]
    VerifyFull,
}

impl SslMode {
    /// The word libpq uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// A text that is not one of the modes we offer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("sslmode must be disable, require or verify-full")]
pub struct InvalidSslMode;

impl FromStr for SslMode {
    type Err = InvalidSslMode;

    fn from_str(text: &str) -> Result<Self, InvalidSslMode> {
        match text {
            "disable" => Ok(Self::Disable),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(InvalidSslMode),
        }
    }
}

/// What a connection demands of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    mode: SslMode,
    root_certificates: Option<String>,
}

impl TlsPolicy {
    /// A policy. `root_certificates` is PEM; empty means the operating system's.
    ///
    /// # Errors
    /// Where certificates are given to a mode that would not look at them, or are too large.
    pub fn new(mode: SslMode, root_certificates: &str) -> Result<Self, InvalidEndpoint> {
        let given = !root_certificates.trim().is_empty();
        let too_many = root_certificates.len() > MAX_ROOT_CERTIFICATES_BYTES;
        if given && (mode != SslMode::VerifyFull || too_many) {
            return Err(InvalidEndpoint::RootCertificates);
        }
        Ok(Self {
            mode,
            root_certificates: given.then(|| root_certificates.trim().to_owned()),
        })
    }

    /// The mode.
    #[must_use]
    pub const fn mode(&self) -> SslMode {
        self.mode
    }

    /// The certificate authorities to trust in PEM, or nothing for the operating system's.
    #[must_use]
    pub fn root_certificates(&self) -> Option<&str> {
        self.root_certificates.as_deref()
    }
}

/// Where connections go and what they demand: all that decides who gets to see a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    endpoints: Vec<Endpoint>,
    tls: TlsPolicy,
}

impl Destination {
    /// A destination; the endpoints are tried in their order.
    ///
    /// # Errors
    /// Where there is no endpoint or there are too many.
    pub fn new(endpoints: Vec<Endpoint>, tls: TlsPolicy) -> Result<Self, InvalidEndpoint> {
        if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
            return Err(InvalidEndpoint::Count { got: endpoints.len() });
        }
        Ok(Self { endpoints, tls })
    }

    /// Where PostgreSQL listens, in the order to try.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What connections demand of TLS.
    #[must_use]
    pub const fn tls(&self) -> &TlsPolicy {
        &self.tls
    }

    /// The endpoints as one text, to find an instance by: `host:port,host:port`.
    #[must_use]
    pub fn endpoints_key(&self) -> String {
        self.endpoints
            .iter()
            .map(Endpoint::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The one spelling of the whole destination, for binding a secret to it. Every part is preceded by its length, so that
    /// no two destinations share a spelling.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let parts = [
            self.endpoints_key(),
            self.tls.mode().as_str().to_owned(),
            self.tls.root_certificates().unwrap_or_default().to_owned(),
        ];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (text, expected) in [
            ("DB.Example.com.", "db.example.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("db_1", "db_1"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_resolvers_read_as_addresses_is_no_name() {
        for text in [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "a b",
            "a/b",
            "-a",
            "ho st",
            "a..b",
            "host=evil",
            "ä.example",
        ] {
            assert!(
                matches!(text.parse::<Host>(), Err(InvalidEndpoint::Host { .. })),
                "{text}"
            );
        }
        assert_eq!(
            "/var/run/postgresql".parse::<Host>(),
            Err(InvalidEndpoint::Socket)
        );
        assert_eq!("@abstract".parse::<Host>(), Err(InvalidEndpoint::Socket));
    }

    #[test]
    fn ports_are_checked() {
        assert_eq!(Endpoint::new("db", 0).unwrap().to_string(), "db:5432");
        assert_eq!(Endpoint::new("::1", 6543).unwrap().to_string(), "[::1]:6543");
        for port in [-1, 65_536, i64::MAX] {
            assert_eq!(Endpoint::new("db", port), Err(InvalidEndpoint::Port { port }));
        }
    }

    #[test]
    fn whatever_decides_who_answers_changes_the_canonical_form() {
        let endpoint = |host| Endpoint::new(host, 5432).unwrap();
        let tls = |mode, roots| TlsPolicy::new(mode, roots).unwrap();
        let all = [
            Destination::new(vec![endpoint("a")], tls(SslMode::VerifyFull, "")),
            Destination::new(vec![endpoint("b")], tls(SslMode::VerifyFull, "")),
            Destination::new(vec![endpoint("a"), endpoint("b")], tls(SslMode::VerifyFull, "")),
            Destination::new(vec![endpoint("a")], tls(SslMode::Require, "")),
            Destination::new(vec![endpoint("a")], tls(SslMode::VerifyFull, "PEM")),
            Destination::new(
                vec![Endpoint::new("a", 5433).unwrap()],
                tls(SslMode::VerifyFull, ""),
            ),
        ]
        .map(|destination| destination.unwrap().canonical());
        for (index, left) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|right| right != left));
        }
    }
}
