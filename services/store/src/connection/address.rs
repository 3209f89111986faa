//! Where the config database is: a PostgreSQL URL with one host or several (PostgreSQL manual, 34.1.1.2).
//!
//! Invariant: no error and no `Debug` shows the password. Parameters pgmoor does not know are refused rather
//! than ignored: a misspelt `sslmode` must not turn verification off.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use thiserror::Error;

const DEFAULT_PORT: u16 = 5432;

/// A text that is not the URL of a config database.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidUrl {
    /// It begins with neither `postgres://` nor `postgresql://`.
    #[error("must begin with postgres:// or postgresql://")]
    Scheme,
    /// A host of the list is empty or badly bracketed.
    #[error("host {position} of the list is not valid")]
    Host {
        /// Its place in the list, from 1.
        position: usize,
    },
    /// A port is not a number from 1 to 65535.
    #[error("the port of host {position} is not a number from 1 to 65535")]
    Port {
        /// The host's place in the list, from 1.
        position: usize,
    },
    /// A `%` is not followed by two hexadecimal digits, or what they encode is not UTF-8.
    #[error("its {part} is not percent-encoded UTF-8")]
    Encoding {
        /// The part of the URL.
        part: &'static str,
    },
    /// No database is named.
    #[error("must name a database")]
    DatabaseMissing,
    /// A parameter pgmoor does not know.
    #[error("parameter {name:?} is not known")]
    UnknownParameter {
        /// The parameter's name.
        name: String,
    },
    /// A parameter's value is not one of those allowed.
    #[error("the value of parameter {name:?} is not valid")]
    ParameterValue {
        /// The parameter's name.
        name: String,
    },
}

/// One place where the config database may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// Over TCP.
    Tcp {
        /// A name or an address.
        name: String,
        /// The port.
        port: u16,
    },
    /// Over a Unix-domain socket.
    Socket {
        /// The socket's directory.
        directory: String,
        /// The port its name carries.
        port: u16,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port } => write!(f, "{name}:{port}"),
            Self::Socket { directory, port } => write!(f, "{directory}/.s.PGSQL.{port}"),
        }
    }
}

/// A parsed URL: the hosts, and what is the same for all of them.
#[derive(Clone, Default)]
pub(crate) struct Address {
    hosts: Vec<Host>,
    user: Option<String>,
    password: Option<SecretString>,
    database: String,
    ssl_mode: Option<PgSslMode>,
    root_certificate: Option<String>,
    client_certificate: Option<String>,
    client_key: Option<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("hosts", &self.hosts)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl Address {
    /// Parses a URL.
    pub(crate) fn parse(url: &SecretString) -> Result<Self, InvalidUrl> {
        let url = url.expose_secret();
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(InvalidUrl::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, host_list) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut address = Self {
            database: decode(path, "database")?,
            ..Self::default()
        };
        if !user_info.is_empty() {
            let (user, password) = match user_info.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (user_info, None),
            };
            address.user = Some(decode(user, "user")?);
            address.password = password
                .map(|text| decode(text, "password"))
                .transpose()?
                .map(SecretString::from);
        }
        let mut names = String::new();
        let mut ports = String::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, "query")?;
            let value = decode(value, "query")?;
            match name.as_str() {
                "host" => names = value,
                "port" => ports = value,
                _ => address.set(&name, value)?,
            }
        }
        address.hosts = if host_list.is_empty() {
            hosts_of_parameters(&names, &ports)?
        } else {
            hosts_of_authority(host_list)?
        };
        if address.database.is_empty() {
            return Err(InvalidUrl::DatabaseMissing);
        }
        Ok(address)
    }

    /// The hosts, in the order of the URL. At least one.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// How to connect to one of the hosts.
    pub(crate) fn options(&self, host: &Host, application_name: &str) -> PgConnectOptions {
        // `extra_float_digits` is a start-up parameter that PgBouncer refuses unless told otherwise.
        let mut options = PgConnectOptions::new_without_pgpass()
            .database(&self.database)
            .application_name(application_name)
            .ssl_mode(self.ssl_mode.unwrap_or_default())
            .extra_float_digits(None);
        options = match host {
            Host::Tcp { name, port } => options.host(name).port(*port),
            Host::Socket { directory, port } => options.socket(directory).port(*port),
        };
        if let Some(user) = &self.user {
            options = options.username(user);
        }
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        if let Some(path) = &self.root_certificate {
            options = options.ssl_root_cert(path);
        }
        if let Some(path) = &self.client_certificate {
            options = options.ssl_client_cert(path);
        }
        if let Some(path) = &self.client_key {
            options = options.ssl_client_key(path);
        }
        options
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), InvalidUrl> {
        let wrong = || InvalidUrl::ParameterValue {
            name: name.to_owned(),
        };
        match name {
            "user" => self.user = Some(value),
            "password" => self.password = Some(SecretString::from(value)),
            "dbname" => self.database = value,
            "sslmode" => self.ssl_mode = Some(PgSslMode::from_str(&value).map_err(|_| wrong())?),
            "sslrootcert" => self.root_certificate = Some(value),
            "sslcert" => self.client_certificate = Some(value),
            "sslkey" => self.client_key = Some(value),
            // pgmoor always looks for the server that takes writes.
            "target_session_attrs" if matches!(value.as_str(), "any" | "read-write" | "primary") => {}
            "target_session_attrs" => return Err(wrong()),
            _ => {
                return Err(InvalidUrl::UnknownParameter {
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn hosts_of_authority(list: &str) -> Result<Vec<Host>, InvalidUrl> {
    list.split(',')
        .zip(1..)
        .map(|(entry, position)| {
            let (name, port) = match entry.strip_prefix('[') {
                Some(rest) => rest.split_once(']').ok_or(InvalidUrl::Host { position })?,
                None => entry.split_at(entry.find(':').unwrap_or(entry.len())),
            };
            let port = match port.strip_prefix(':') {
                Some(port) => parse_port(port, position)?,
                None if port.is_empty() => DEFAULT_PORT,
                None => return Err(InvalidUrl::Host { position }),
            };
            host(decode(name, "host")?, port, position)
        })
        .collect()
}

/// libpq's other spelling: `?host=a,b&port=1,2`. One port stands for all hosts.
fn hosts_of_parameters(names: &str, ports: &str) -> Result<Vec<Host>, InvalidUrl> {
    let ports: Vec<&str> = ports.split(',').collect();
    names
        .split(',')
        .enumerate()
        .map(|(index, name)| {
            let position = index + 1;
            let port = if ports.len() == 1 {
                ports.first()
            } else {
                ports.get(index)
            };
            let port = match port.copied().ok_or(InvalidUrl::Port { position })? {
                "" => DEFAULT_PORT,
                port => parse_port(port, position)?,
            };
            host(name.to_owned(), port, position)
        })
        .collect()
}

fn host(name: String, port: u16, position: usize) -> Result<Host, InvalidUrl> {
    if name.is_empty() {
        Err(InvalidUrl::Host { position })
    } else if name.starts_with('/') {
        Ok(Host::Socket {
            directory: name,
            port,
        })
    } else {
        Ok(Host::Tcp { name, port })
    }
}

fn parse_port(text: &str, position: usize) -> Result<u16, InvalidUrl> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or(InvalidUrl::Port { position })
}

/// Percent-decoding (RFC 3986, 2.1). A `+` is a plus sign, as for libpq.
fn decode(text: &str, part: &'static str) -> Result<String, InvalidUrl> {
    let wrong = || InvalidUrl::Encoding { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong());
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, InvalidUrl> {
        Address::parse(&SecretString::from(url))
    }

    fn hosts(url: &str) -> Vec<String> {
        parse(url).unwrap().hosts().iter().map(Host::to_string).collect()
    }

    #[test]
    fn url_may_have_several_hosts() {
        assert_eq!(
            hosts("postgres://u:p@h1:5432,h2:5433,h3/pgmoor"),
            ["h1:5432", "h2:5433", "h3:5432"]
        );
        assert_eq!(
            hosts("postgresql://u@[::1]:6000,10.0.0.1/d"),
            ["[::1]:6000", "10.0.0.1:5432"]
        );
        assert_eq!(
            hosts("postgres:///d?host=/run/pg,h2&port=7000"),
            ["/run/pg/.s.PGSQL.7000", "h2:7000"]
        );
        assert_eq!(hosts("postgres://%2Frun%2Fpg/d"), ["/run/pg/.s.PGSQL.5432"]);
    }

    #[test]
    fn user_password_and_database_are_decoded() {
        let address = parse("postgres://a%40b:p%2Fw%3F%25+@h/data%20base?sslmode=verify-full").unwrap();
        assert_eq!(address.user.as_deref(), Some("a@b"));
        assert_eq!(
            address.password.as_ref().map(ExposeSecret::expose_secret),
            Some("p/w?%+")
        );
        assert_eq!(address.database, "data base");
        assert!(matches!(address.ssl_mode, Some(PgSslMode::VerifyFull)));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let refused = |url: &str| parse(url).unwrap_err();
        assert_eq!(refused("mysql://h/d"), InvalidUrl::Scheme);
        assert_eq!(refused("postgres://h1,,h3/d"), InvalidUrl::Host { position: 2 });
        assert_eq!(refused("postgres://h1,[::1/d"), InvalidUrl::Host { position: 2 });
        assert_eq!(refused("postgres://h1:0/d"), InvalidUrl::Port { position: 1 });
        assert_eq!(
            refused("postgres://h1,h2:99999/d"),
            InvalidUrl::Port { position: 2 }
        );
        assert_eq!(
            refused("postgres://u:%zz@h/d"),
            InvalidUrl::Encoding { part: "password" }
        );
        assert_eq!(refused("postgres://h"), InvalidUrl::DatabaseMissing);
        assert_eq!(
            refused("postgres://h/d?sslmod=x"),
            InvalidUrl::UnknownParameter {
                name: "sslmod".to_owned()
            }
        );
        assert_eq!(
            refused("postgres://h/d?sslmode=x"),
            InvalidUrl::ParameterValue {
                name: "sslmode".to_owned()
            }
        );
        assert_eq!(refused("postgres:///d"), InvalidUrl::Host { position: 1 });
    }

    #[test]
    fn password_is_in_no_output() {
        assert!(!format!("{:?}", parse("postgres://u:hunter2@h/d").unwrap()).contains("hunter2"));
        for url in [
            "postgres://u:hunter2@h:x/d",
            "postgres://u:hunter2@h",
            "postgres://u:hunter2%@h/d",
        ] {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
    }
}
