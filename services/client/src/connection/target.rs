//! Where the API is and whom to trust there.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use thiserror::Error;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why a connection cannot even be tried.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Not an address of a server.
    #[error("{url:?} is not an address: it is http://host:port or https://host:port, without a path")]
    Url {
        /// What was given.
        url: String,
    },
    /// The certificate authorities cannot be read.
    #[error("cannot read {}", path.display())]
    CaFile {
        /// Their file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The operating system has no certificate authorities, or they cannot be read.
    #[error("the operating system's certificate authorities cannot be read; name some with --ca-file")]
    NoRoots,
    /// The certificate authorities cannot be used.
    #[error("the certificate authorities cannot be used")]
    Tls(#[source] tonic::transport::Error),
}

/// Where the API is and whom to trust there.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// The certificate authorities to trust, in PEM; none for the operating system's.
    pub ca_file: Option<PathBuf>,
}

impl Target {
    /// A target that the operating system's certificate authorities vouch for.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
        }
    }

    pub(super) fn channel(&self) -> Result<Channel, ConnectError> {
        let uri = self.uri()?;
        let mut endpoint = Endpoint::from(uri.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .user_agent(concat!("pgmoor/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| ConnectError::Url {
                url: self.url.clone(),
            })?;
        if uri.scheme_str() == Some("https") {
            let tls = ClientTlsConfig::new()
                .ca_certificate(self.authorities()?)
                .timeout(CONNECT_TIMEOUT);
            endpoint = endpoint.tls_config(tls).map_err(ConnectError::Tls)?;
        }
        Ok(endpoint.connect_lazy())
    }

    fn uri(&self) -> Result<Uri, ConnectError> {
        let invalid = || ConnectError::Url {
            url: self.url.clone(),
        };
        let uri: Uri = self.url.parse().map_err(|_| invalid())?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|authority| {
            // A password in an address ends up in shell histories and process lists.
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        (scheme && authority && bare).then_some(uri).ok_or_else(invalid)
    }

    fn authorities(&self) -> Result<Certificate, ConnectError> {
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).map_err(|source| ConnectError::CaFile {
                path: path.clone(),
                source,
            })?;
            return Ok(Certificate::from_pem(pem));
        }
        let roots = rustls_native_certs::load_native_certs().certs;
        if roots.is_empty() {
            return Err(ConnectError::NoRoots);
        }
        let pem: String = roots
            .iter()
            .map(|der| {
                format!(
                    "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                    STANDARD.encode(der)
                )
            })
            .collect();
        Ok(Certificate::from_pem(pem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_scheme_host_and_port_and_nothing_else() {
        for url in [
            "http://127.0.0.1:7700",
            "https://db.example.com",
            "http://[::1]:7700/",
        ] {
            assert!(Target::new(url).uri().is_ok(), "{url}");
        }
        for url in [
            "db.example.com:443",
            "ftp://x",
            "http://",
            "http://alice:pw@host",
            "https://host/path",
            "http://host?x=1",
            "",
        ] {
            assert!(
                matches!(Target::new(url).uri(), Err(ConnectError::Url { .. })),
                "{url}"
            );
        }
    }
}
