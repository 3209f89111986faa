//! Connections to the config database, on whichever host takes writes now.
//!
//! Invariant: a connection that is handed out was writable a moment ago. It is asked before each use, which
//! costs the round trip that a liveness check costs anyway; when it is dead, read-only or too long in coming,
//! the hosts are asked again which of them takes writes, and the pool follows.

pub(crate) mod address;
mod pooling;
mod primary;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPoolOptions, Postgres};
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

pub use address::InvalidUrl;
pub(crate) use primary::{Found, find_primary};

use crate::error::{StoreError, Unavailable};
use address::Address;

/// The longest wait for a connection. Short: a caller with nothing better to do can try again, others fail
/// over.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be in coming before the hosts are asked again.
const PATIENCE: Duration = Duration::from_millis(300);
/// The least time between two questions to the hosts.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// The wait before a connection is tried again that the primary refused.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What every connection is set to. `SET` rather than start-up parameters, which PgBouncer refuses.
const SESSION_SETTINGS: &str = "\
    SET statement_timeout = '10s'; \
    SET lock_timeout = '5s'; \
    SET idle_in_transaction_session_timeout = '15s'; \
    SET default_transaction_isolation = 'read committed'";
/// A connection's fitness for use.
const IS_READ_ONLY: &str = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";

/// Where the config database is and how much of it to take.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `postgres://user:password@host:port[,host:port...]/database`.
    pub url: SecretString,
    /// Most connections this process keeps.
    pub max_connections: u32,
    /// What `pg_stat_activity` shows for them.
    pub application_name: String,
}

/// Why the config database cannot be used at all.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL is wrong.
    #[error("the config database url is not valid: {0}")]
    Url(#[from] InvalidUrl),
    /// PostgreSQL is older than 14.
    #[error("the config database is PostgreSQL {found}, and at least 14 is needed")]
    TooOld {
        /// The version the server states.
        found: String,
    },
    /// A pooler in front gives two of our connections the same backend: it pools transactions, not sessions.
    #[error(
        "the config database is behind a pooler that pools transactions or statements; only session pooling \
         works"
    )]
    TransactionPooling,
    /// The database cannot be reached or refused us.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ConnectError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The pool and what keeps it on the primary.
pub(crate) struct Connections {
    pool: PgPool,
    address: Address,
    application_name: String,
    switched: Arc<Switched>,
    probes: tokio::sync::Mutex<Probes>,
}

/// Shared with the pool's callbacks.
struct Switched {
    /// Connections made before this moment lead to a server that is not the primary any more.
    at: Mutex<Instant>,
}

/// What the hosts answered last. Behind a lock that is held while they are asked: everybody waits for one
/// answer.
struct Probes {
    current: Found,
    asked_at: Instant,
    failed: bool,
}

/// What the hosts' answer means for the pool.
enum Followed {
    Unchanged,
    Switched,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("address", &self.address)
            .field("size", &self.pool.size())
            .finish()
    }
}

impl Switched {
    fn mark(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn age(&self) -> Duration {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Connections {
    /// Finds the primary and makes a pool of connections to it.
    pub(crate) async fn open(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let address = Address::parse(&options.url)?;
        let application_name = options.application_name.clone();
        let current = find_primary(&address, &application_name).await?;
        let switched = Arc::new(Switched {
            at: Mutex::new(Instant::now()),
        });
        let pool = pool(options.max_connections, &switched)
            .connect_lazy_with(address.options(&current.host, &application_name));
        let probes = tokio::sync::Mutex::new(Probes {
            current,
            asked_at: Instant::now(),
            failed: false,
        });
        Ok(Self {
            pool,
            address,
            application_name,
            switched,
            probes,
        })
    }

    /// A connection to the primary, within [`ACQUIRE_TIMEOUT`].
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let deadline = Instant::now() + ACQUIRE_TIMEOUT;
        let acquired = timeout_at(deadline, self.acquire_or_follow()).await;
        acquired.map_err(|_| StoreError::from(Unavailable::AcquireTimeout))?
    }

    /// Waits for a connection, and asks where the primary is whenever that takes long.
    ///
    /// The place in the pool's queue is kept, and heeded, meanwhile: a connection handed to somebody who is busy asking would
    /// be nobody's.
    async fn acquire_or_follow(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let mut attempt = Box::pin(self.pool.acquire());
        loop {
            let followed = tokio::select! {
                biased;
                result = &mut attempt => match result.map_err(StoreError::from) {
                    Err(StoreError::Unavailable(_)) => {
                        attempt = Box::pin(self.pool.acquire());
                        let followed = self.follow().await?;
                        if matches!(followed, Followed::Unchanged) {
                            sleep(RETRY_INTERVAL).await;
                        }
                        followed
                    }
                    ended => return ended,
                },
                followed = async {
                    sleep(PATIENCE).await;
                    self.follow().await
                } => followed?,
            };
            if matches!(followed, Followed::Switched) {
                attempt = Box::pin(self.pool.acquire());
            }
        }
    }

    /// Where the config database may be.
    pub(crate) fn hosts(&self) -> &[address::Host] {
        self.address.hosts()
    }

    /// Closes all connections and waits for those in use.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Asks the hosts which of them takes writes, unless that was done a moment ago, and points the pool
    /// there.
    async fn follow(&self) -> Result<Followed, StoreError> {
        let waited_from = Instant::now();
        let mut probes = self.probes.lock().await;
        if probes.asked_at > waited_from || probes.asked_at.elapsed() < PROBE_INTERVAL {
            let age = self.switched.age();
            return match probes.failed {
                true => Err(Unavailable::AcquireTimeout.into()),
                false if age <= waited_from.elapsed() => Ok(Followed::Switched),
                false => Ok(Followed::Unchanged),
            };
        }
        let answer = find_primary(&self.address, &self.application_name).await;
        probes.asked_at = Instant::now();
        probes.failed = answer.is_err();
        let found = match answer {
            Ok(found) => found,
            // No room for a question, so no answer: whoever waits for a connection in use goes on waiting.
            Err(ConnectError::Store(StoreError::Unavailable(Unavailable::Connection(error))))
                if primary::is_full(&error) =>
            {
                probes.failed = false;
                return Ok(Followed::Unchanged);
            }
            Err(ConnectError::Store(error)) => return Err(error),
            Err(other) => {
                let report = (probes.current.host.to_string(), other.to_string());
                return Err(Unavailable::NoPrimary(crate::error::Reports(vec![report])).into());
            }
        };
        if found == probes.current {
            return Ok(Followed::Unchanged);
        }
        tracing::warn!(host = %found.host, before = %probes.current.host, "the config database changed its \
            primary");
        self.pool
            .set_connect_options(self.address.options(&found.host, &self.application_name));
        self.switched.mark();
        probes.current = found;
        Ok(Followed::Switched)
    }
}

fn pool(max_connections: u32, switched: &Arc<Switched>) -> PgPoolOptions {
    let switched = Arc::clone(switched);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION_SETTINGS).execute(&mut *connection).await?;
                match is_read_only(connection).await? {
                    true => Err(sqlx::Error::Io(std::io::Error::other("the server is read-only"))),
                    false => Ok(()),
                }
            })
        })
        .before_acquire(move |connection, meta| {
            let outdated = meta.age >= switched.age();
            Box::pin(async move {
                match outdated {
                    true => Ok(false),
                    false => Ok(!is_read_only(connection).await?),
                }
            })
        })
}

/// True for a standby and for a server that was told to take no writes.
pub(crate) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    use sqlx::Row as _;

    sqlx::raw_sql(IS_READ_ONLY)
        .fetch_one(connection)
        .await?
        .try_get(0)
}
