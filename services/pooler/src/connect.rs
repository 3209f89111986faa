//! Makes connections to targets: resolves, checks every address, opens the password, logs in.
//!
//! Invariant: a connection goes to an address that was checked after its name was resolved, and a password goes only
//! where it was sealed for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use domain::egress::EgressPolicy;
use domain::endpoint::{Endpoint, Host, SslMode, TlsPolicy};
use domain::name::Identifier;
use futures::future::join_all;
use parking_lot::Mutex;
use pgconn::{
    ConnectConfig, ConnectError, Connection, FailedConnect, HostPort, Lingering, TlsMode, TlsRoots,
};
use sealing::{Binding, KeyId, OpenError, Opener, Sealed};
use secrecy::SecretString;
use store::servers::{Credential, Server};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::backend::Backend;
use crate::error::{PoolerError, TargetError};
use crate::slots::Slot;

const RESOLVE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(10);
/// After "too many clients" another try is not worth it sooner.
const TOO_MANY_CLIENTS: Duration = Duration::from_secs(5);
/// Sets of certificate authorities kept ready. Reading one is slow.
const MOST_ROOTS: usize = 64;

/// What is needed to connect to any target.
pub(crate) struct Connector {
    egress: EgressPolicy,
    opener: Opener,
    application_name: String,
    roots: Mutex<HashMap<String, TlsRoots>>,
}

impl Connector {
    pub(crate) fn new(egress: EgressPolicy, opener: Opener, application_name: String) -> Self {
        Self {
            egress,
            opener,
            application_name,
            roots: Mutex::default(),
        }
    }

    /// Everything that connecting needs. Nothing has been contacted but the resolver.
    pub(crate) async fn prepare(
        &self,
        server: &Server,
        credential: &Credential,
        database: Option<&Identifier>,
        parameters: Vec<(String, String)>,
    ) -> Result<ConnectConfig, PoolerError> {
        let hosts = self.resolve(server.destination.endpoints()).await?;
        let password = self.password(server, credential)?;
        let tls = self.tls(server.destination.tls())?;
        let first = hosts
            .first()
            .cloned()
            .ok_or_else(|| unreachable("no address was found"))?;
        let database = database.unwrap_or(&server.maintenance_database);
        let mut config = ConnectConfig::new(first, credential.role.as_str(), database.as_str(), tls);
        config.hosts = hosts;
        config.password = Some(password);
        config.application_name.clone_from(&self.application_name);
        config.startup_parameters.extend(parameters);
        config.connect_timeout = CONNECT;
        Ok(config)
    }

    async fn resolve(&self, endpoints: &[Endpoint]) -> Result<Vec<HostPort>, PoolerError> {
        let mut hosts = Vec::new();
        let mut failure = None;
        for endpoint in endpoints {
            self.egress.check_endpoint(endpoint)?;
            let addresses = match addresses(endpoint).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            let name = endpoint.host.to_string();
            for address in addresses {
                self.egress.check_address(endpoint, address)?;
                hosts.push(HostPort {
                    name: name.clone(),
                    address,
                });
            }
        }
        match failure {
            Some(error) if hosts.is_empty() => Err(error.into()),
            _ => Ok(hosts),
        }
    }

    fn password(&self, server: &Server, credential: &Credential) -> Result<SecretString, PoolerError> {
        let binding = Binding {
            server: server.id,
            kind: credential.kind,
            username: credential.role.as_str(),
            destination: &server.destination,
        };
        let key = KeyId::from_stored(credential.key_id.clone());
        let sealed = Sealed {
            key,
            bytes: credential.sealed.clone(),
        };
        self.opener.open(&binding, &sealed).map_err(|error| {
            match &error {
                OpenError::Void => tracing::warn!(server.id = %server.id, "a password is void"),
                OpenError::UnknownKey { key } => {
                    tracing::error!(server.id = %server.id, %key, "a password is sealed to a key not held here");
                }
            }
            PoolerError::CredentialMissing
        })
    }

    fn tls(&self, policy: &TlsPolicy) -> Result<TlsMode, TargetError> {
        let roots = match policy.mode() {
            SslMode::Disable => return Ok(TlsMode::Disable),
            SslMode::Require => return Ok(TlsMode::Require),
            SslMode::VerifyFull => policy.root_certificates().unwrap_or_default(),
        };
        let mut known = self.roots.lock();
        if let Some(roots) = known.get(roots) {
            return Ok(TlsMode::VerifyFull { roots: roots.clone() });
        }
        let read = if roots.is_empty() {
            TlsRoots::native()
        } else {
            TlsRoots::from_pem(roots.as_bytes())
        };
        let read = read.map_err(|error| TargetError::Tls {
            reason: error.to_string(),
        })?;
        if known.len() >= MOST_ROOTS {
            known.clear();
        }
        known.insert(roots.to_owned(), read.clone());
        Ok(TlsMode::VerifyFull { roots: read })
    }
}

/// Logs in under a slot, which comes back with the connection. Where none came about the slot stays taken until the
/// server has let go of what it began: `tasks` keeps track of that, the caller does not wait for it.
pub(crate) async fn connect(
    config: &ConnectConfig,
    slot: Slot,
    tasks: &TaskTracker,
) -> Result<Backend, TargetError> {
    match Connection::connect_or_linger(config).await {
        Ok(connection) => Ok(Backend::new(connection, slot, tasks.clone())),
        Err(FailedConnect { error, lingering }) => {
            tasks.spawn(async move {
                join_all(lingering.into_iter().map(Lingering::gone)).await;
                drop(slot);
            });
            Err(target_error(&error))
        }
    }
}

async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, TargetError> {
    let port = endpoint.port.get();
    match &endpoint.host {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
        Host::Name(name) => match timeout(RESOLVE, lookup_host((name.as_str(), port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(_)) => Err(unreachable(&format!("{name} does not resolve"))),
            Err(_) => Err(unreachable(&format!("{name} did not resolve in time"))),
        },
    }
}

fn unreachable(reason: &str) -> TargetError {
    TargetError::Unreachable {
        reason: reason.to_owned(),
    }
}

/// A status travels in headers, which hold little: what a server says may be long.
fn shown(text: &str) -> String {
    const MOST: usize = 1024;
    text[..text.floor_char_boundary(MOST)].to_owned()
}

fn target_error(error: &ConnectError) -> TargetError {
    let reason = shown(&error.to_string());
    match error {
        ConnectError::Server(refusal) => match refusal.sqlstate.as_str() {
            // Class 28: invalid authorization specification.
            code if code.starts_with("28") => TargetError::Authentication {
                reason: shown(&refusal.message.to_str_lossy()),
            },
            "53300" => TargetError::TooManyClients {
                retry_after: TOO_MANY_CLIENTS,
            },
            code => TargetError::Refused {
                sqlstate: code.to_owned(),
                message: shown(&refusal.message.to_str_lossy()),
            },
        },
        ConnectError::AuthMethodRefused { .. }
        | ConnectError::PasswordMissing
        | ConnectError::ServerNotAuthentic { .. } => TargetError::Authentication { reason },
        ConnectError::TlsRefused { .. } | ConnectError::TlsInjection { .. } | ConnectError::Tls { .. } => {
            TargetError::Tls { reason }
        }
        ConnectError::Unreachable { .. }
        | ConnectError::Timeout { .. }
        | ConnectError::Lost { .. }
        | ConnectError::Protocol { .. }
        | ConnectError::Configuration { .. } => TargetError::Unreachable { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_fits_into_a_status() {
        assert_eq!(shown("no"), "no");
        assert_eq!(shown(&"ü".repeat(100_000)).len(), 1024);
    }
}
