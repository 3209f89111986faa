//! What can be set of a server on the command line, and how hosts are written there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rpc::server::v1::{Endpoint, Server, SslMode, TlsPolicy};

use crate::error::ClientError;
use crate::output::record::text;

/// How connections are protected, in libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SslModeOption {
    /// No TLS
    Disable,
    /// TLS without checking who answers
    Require,
    /// TLS with a certificate that is valid for the host
    VerifyFull,
}

/// What can be set of a server.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Fields {
    /// A host, as host or host:port; again for another that is tried after it
    #[arg(long = "host", value_name = "HOST[:PORT]", value_parser = endpoint)]
    pub(super) hosts: Vec<Endpoint>,
    /// The PostgreSQL user to log in as
    #[arg(long, value_name = "ROLE")]
    pub(super) username: Option<String>,
    /// The group it stands in
    #[arg(long)]
    pub(super) group: Option<String>,
    /// The database that is used when none is named
    #[arg(long, value_name = "DATABASE")]
    pub(super) maintenance_database: Option<String>,
    /// How connections are protected [default of the server: verify-full]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(super) ssl_mode: Option<SslModeOption>,
    /// Certificate authorities to trust, in PEM
    #[arg(long, value_name = "FILE")]
    pub(super) root_certificates: Option<PathBuf>,
    /// Free text
    #[arg(long)]
    pub(super) comment: Option<String>,
}

impl Fields {
    /// Writes what was given into the server, and says which fields that were.
    pub(super) fn apply(&self, server: &mut Server) -> Result<Vec<&'static str>, ClientError> {
        let mut paths = Vec::new();
        let mut set = |field: &mut String, value: &Option<String>, path| {
            if let Some(value) = value {
                field.clone_from(value);
                paths.push(path);
            }
        };
        set(&mut server.username, &self.username, "username");
        set(&mut server.group, &self.group, "group");
        set(
            &mut server.maintenance_database,
            &self.maintenance_database,
            "maintenance_database",
        );
        set(&mut server.comment, &self.comment, "comment");
        if !self.hosts.is_empty() {
            server.endpoints.clone_from(&self.hosts);
            paths.push("endpoints");
        }
        if self.ssl_mode.is_some() || self.root_certificates.is_some() {
            let mode = match self.ssl_mode {
                None => SslMode::Unspecified,
                Some(SslModeOption::Disable) => SslMode::Disable,
                Some(SslModeOption::Require) => SslMode::Require,
                Some(SslModeOption::VerifyFull) => SslMode::VerifyFull,
            };
            let root_certificates = match &self.root_certificates {
                Some(path) => std::fs::read_to_string(path).map_err(ClientError::reading(path))?,
                None => String::new(),
            };
            server.tls = Some(TlsPolicy {
                mode: mode.into(),
                root_certificates,
            });
            paths.push("tls");
        }
        Ok(paths)
    }
}

/// `host`, `host:port` or `[address]:port`.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("an address in brackets ends with ]")?;
        (
            host,
            rest.strip_prefix(':')
                .or_else(|| rest.is_empty().then_some(""))
                .ok_or("a port follows after ]:")?,
        )
    } else if text.matches(':').count() > 1 {
        (text, "")
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    if host.is_empty() {
        return Err("there is no host".into());
    }
    let port = match port {
        "" => 0,
        port => port
            .parse::<u16>()
            .map_err(|_| format!("{port:?} is not a port"))?
            .into(),
    };
    Ok(Endpoint {
        host: host.to_owned(),
        port,
    })
}

/// Hosts and ports as one text.
pub(crate) fn endpoints_text(endpoints: &[Endpoint]) -> Option<String> {
    let texts: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let port = if endpoint.port == 0 { 5432 } else { endpoint.port };
            if endpoint.host.contains(':') {
                format!("[{}]:{port}", endpoint.host)
            } else {
                format!("{}:{port}", endpoint.host)
            }
        })
        .collect();
    text(&texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_their_ports() {
        let read = |text| endpoint(text).map(|endpoint| (endpoint.host, endpoint.port));
        assert_eq!(read("db"), Ok(("db".into(), 0)));
        assert_eq!(read("db:5433"), Ok(("db".into(), 5433)));
        assert_eq!(read("::1"), Ok(("::1".into(), 0)));
        assert_eq!(read("[::1]:5433"), Ok(("::1".into(), 5433)));
        for wrong in ["", ":5432", "db:x", "db:65536", "[::1", "[::1]5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_was_given_is_changed() {
        let fields = Fields {
            comment: Some(String::new()),
            ssl_mode: Some(SslModeOption::Require),
            ..Fields::default()
        };
        let mut server = Server::default();
        assert_eq!(fields.apply(&mut server).unwrap(), ["comment", "tls"]);
    }
}
