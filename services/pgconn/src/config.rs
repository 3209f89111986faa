//! Where to connect, as whom, and what to insist on.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

use crate::error::ConnectError;
use crate::frame::FrameLimits;
use crate::tls::TlsMode;

/// A server address that was already resolved (and checked against egress rules) by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address as configured: sent as SNI and looked for in the certificate.
    pub name: String,
    /// Where to connect. No name is resolved here.
    pub address: SocketAddr,
}

/// The ways to authenticate a server may ask for, like libpq's `require_auth`. Default: SCRAM-SHA-256 only.
///
/// With anything else allowed, a false server can obtain the password (`password`), something to attack
/// offline (`md5`) or the statements themselves (`none`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequireAuth {
    /// SCRAM-SHA-256, with channel binding when the connection is encrypted.
    pub scram_sha_256: bool,
    /// The MD5 challenge.
    pub md5: bool,
    /// The password in clear text.
    pub password: bool,
    /// No authentication at all (`trust`, `peer` and the like).
    pub none: bool,
}

impl Default for RequireAuth {
    fn default() -> Self {
        Self {
            scram_sha_256: true,
            md5: false,
            password: false,
            none: false,
        }
    }
}

impl RequireAuth {
    /// Whatever the server asks for.
    pub const ANY: RequireAuth = RequireAuth {
        scram_sha_256: true,
        md5: true,
        password: true,
        none: true,
    };
}

/// Everything needed to make one connection.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// Tried in this order until one answers. A server that refuses ends the search, unless it says that it
    /// is starting up or shutting down (57P03).
    pub hosts: Vec<HostPort>,
    /// Database role.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// Database name.
    pub database: String,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Settings for the session, such as `client_encoding` or `statement_timeout`. Not `user`, `database`,
    /// `application_name` or `replication`.
    pub startup_parameters: Vec<(String, String)>,
    /// Encryption.
    pub tls: TlsMode,
    /// Ways to authenticate that are acceptable.
    pub require_auth: RequireAuth,
    /// For the whole attempt, over all hosts. Each host gets an equal share of what is left.
    pub connect_timeout: Duration,
    /// How large a message may be before it is cut into pieces.
    pub limits: FrameLimits,
}

impl ConnectConfig {
    /// One host, SCRAM only, no password yet, ten seconds to connect, and UTF8 as the client encoding.
    ///
    /// A database whose `server_encoding` is SQL_ASCII may hold bytes that are not UTF-8; asked for UTF8 the
    /// server answers them with an error (22021). Connect to it with SQL_ASCII as the client encoding.
    pub fn new(host: HostPort, user: &str, database: &str, tls: TlsMode) -> Self {
        Self {
            hosts: vec![host],
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            application_name: String::new(),
            startup_parameters: vec![("client_encoding".to_owned(), "UTF8".to_owned())],
            tls,
            require_auth: RequireAuth::default(),
            connect_timeout: Duration::from_secs(10),
            limits: FrameLimits::default(),
        }
    }

    /// The parameters of the start-up message.
    pub(crate) fn startup(&self) -> Result<Vec<(&str, &str)>, ConnectError> {
        let mut parameters = vec![("user", self.user.as_str()), ("database", self.database.as_str())];
        if !self.application_name.is_empty() {
            parameters.push(("application_name", &self.application_name));
        }
        for (name, value) in &self.startup_parameters {
            // `replication` would turn the session into a WAL sender, the others contradict a field, and an
            // empty name ends the list.
            let reserved = ["user", "database", "application_name", "replication", ""];
            if reserved
                .iter()
                .any(|reserved| name.eq_ignore_ascii_case(reserved))
            {
                return Err(ConnectError::Configuration {
                    reason: "startup_parameters holds a reserved name",
                });
            }
            parameters.push((name, value));
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_startup_parameters_are_refused() {
        let host = HostPort {
            name: "h".into(),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let mut config = ConnectConfig::new(host, "u", "d", TlsMode::Disable);
        assert!(config.startup().is_ok());
        for name in ["replication", "User", "database", ""] {
            config.startup_parameters = vec![(name.to_owned(), "x".to_owned())];
            assert!(
                matches!(config.startup(), Err(ConnectError::Configuration { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn the_password_is_not_in_debug_output() {
        let host = HostPort {
            name: "h".into(),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let mut config = ConnectConfig::new(host, "u", "d", TlsMode::Disable);
        config.password = Some("hunter2".into());
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
