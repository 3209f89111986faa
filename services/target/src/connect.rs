//! Connections for pgmoor's own questions: a small pool per target and login.
//!
//! Invariant: a server that asks for the password in any way but SCRAM-SHA-256 does not get it (`require_auth` of libpq).

mod authentication;
mod tls;

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use domain::name::Identifier;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;

use crate::questions::Questions;
use crate::resolve::Resolved;

use self::tls::Encryption;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The certificates to trust cannot be used.
    #[error("the root certificates cannot be used: {reason}")]
    RootCertificates {
        /// What is wrong with them.
        reason: String,
    },
    /// The server refused the user or the password.
    #[error("the server refused the user or the password")]
    Authentication(#[source] tokio_postgres::Error),
    /// The server has no room for another client.
    #[error("the server has too many clients")]
    TooManyClients(#[source] tokio_postgres::Error),
    /// The server refused for another reason.
    #[error("the server refused the connection with SQLSTATE {code}")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// The refusal.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server cannot be reached, or TLS with it failed.
    #[error("the server cannot be reached")]
    Unreachable(#[source] tokio_postgres::Error),
    /// No connection within the deadline.
    #[error("no connection within the deadline")]
    Timeout,
    /// The pool is closed or misconfigured.
    #[error("the pool of connections is not usable")]
    Pool(#[source] PoolError),
}

/// Who connects to which database.
#[derive(Debug, Clone)]
pub struct Login {
    /// The role.
    pub username: Identifier,
    /// Its password.
    pub password: SecretString,
    /// The database.
    pub database: Identifier,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Most connections at once.
    pub max_connections: usize,
    /// For a connection: the wait for a free one, and for a new one over all endpoints.
    pub connect_timeout: Duration,
    /// For a statement of ours.
    pub statement_timeout: Duration,
}

/// A target under one login. Connections are made when they are needed.
#[derive(Clone)]
pub struct Target {
    pool: Pool,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

impl Target {
    /// Prepares connections to `resolved`.
    ///
    /// # Errors
    /// Where the destination's root certificates cannot be used.
    pub fn new(resolved: &Resolved, login: &Login, options: &TargetOptions) -> Result<Self, ConnectError> {
        let mut config = tokio_postgres::Config::new();
        for endpoint in resolved.endpoints() {
            // The name is for the certificate; the address alone decides where the connection goes.
            config.host(endpoint.endpoint.host.to_string());
            config.hostaddr(endpoint.address.ip());
            config.port(endpoint.address.port());
        }
        let timeout = options.statement_timeout.as_millis();
        config
            .user(login.username.as_str())
            .password(login.password.expose_secret())
            .dbname(login.database.as_str())
            .application_name(&options.application_name)
            .options(format!(
                "-c statement_timeout={timeout} -c search_path= -c lock_timeout={timeout}"
            ))
            .connect_timeout(options.connect_timeout)
            .ssl_mode(SslMode::Require);
        let encryption = Encryption::new(resolved.tls())?;
        if encryption.is_none() {
            // Our "TLS" then is the bare connection under the watch on authentication: nothing to negotiate.
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let pool = Pool::builder(Manager::from_config(config, encryption, recycling))
            .max_size(options.max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.connect_timeout))
            .create_timeout(Some(options.connect_timeout))
            .recycle_timeout(Some(options.connect_timeout))
            .build()
            .map_err(|error| ConnectError::RootCertificates {
                reason: error.to_string(),
            })?;
        Ok(Self { pool })
    }

    /// A connection to ask questions on.
    ///
    /// # Errors
    /// Where there is none within the deadline.
    pub async fn questions(&self) -> Result<Questions, ConnectError> {
        self.pool.get().await.map(Questions::new).map_err(cause)
    }

    /// Closes the connections as they come back.
    pub fn close(&self) {
        self.pool.close();
    }
}

fn cause(error: PoolError) -> ConnectError {
    match error {
        PoolError::Backend(error) => match error.code() {
            Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => ConnectError::TooManyClients(error),
            Some(code) if code.code().starts_with("28") => ConnectError::Authentication(error),
            Some(code) => ConnectError::Refused {
                code: code.code().to_owned(),
                source: error,
            },
            None => ConnectError::Unreachable(error),
        },
        PoolError::Timeout(_) => ConnectError::Timeout,
        error => ConnectError::Pool(error),
    }
}
