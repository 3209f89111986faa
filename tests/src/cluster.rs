//! A private PostgreSQL cluster: made by `initdb` in a temporary directory, on a free loopback port, gone
//! with the test.
//!
//! Invariant: the server runs under the process's lifeline ([`crate::process`]) and its directory is removed
//! when the value is dropped or this process ends. Nothing here belongs to an async runtime, so that tests
//! with a runtime each can share one cluster.

mod layout;
mod standby;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::database::{Connection, Database, Endpoint, Login, SUPERUSER};
use crate::eventually;
use crate::process::{Process, Signal};
use crate::{random, tls};

/// How long a server may take to accept its first connection, or to stop.
const DEADLINE: Duration = Duration::from_secs(60);

/// Ports tried when somebody else takes the chosen one before the server does.
const ATTEMPTS: u32 = 3;

/// How a cluster differs from the default one.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Lines for postgresql.conf, which win over the harness's own (e.g. `("max_connections", "20")`). A
    /// value is quoted here. Own defaults: 100 connections, no fsync, `wal_level = replica`, listening on
    /// 127.0.0.1.
    pub settings: Vec<(String, String)>,
    /// The text of pg_hba.conf, instead of SCRAM for everybody. A line that lets the superuser in from
    /// 127.0.0.1 always comes first.
    pub hba: Option<String>,
    /// Turns TLS on with this certificate; clients' certificates are checked against its authority.
    pub ssl: Option<tls::Identity>,
}

impl ClusterOptions {
    /// The same options with one more setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A PostgreSQL server of this test process.
#[derive(Debug)]
pub struct Cluster {
    // Declared before the directory: the server stops before its files go.
    server: Mutex<Option<Process>>,
    directory: TempDir,
    options: ClusterOptions,
    endpoint: Endpoint,
}

impl Cluster {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the text has the server's log.
    pub async fn start(options: ClusterOptions) -> Self {
        let directory = layout::directory();
        let password = random::password();
        layout::initdb(directory.path(), &password).await;
        Self::first_start(directory, options, password).await
    }

    /// The cluster all tests of this process share, for tests that need a database and nothing special of the
    /// server. It allows 200 connections. Do not stop it.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED
            .get_or_init(|| Self::start(ClusterOptions::default().setting("max_connections", "200")))
            .await
    }

    /// Starts the server in a directory that holds a data directory, on a port that is its own from then on.
    async fn first_start(directory: TempDir, options: ClusterOptions, password: String) -> Self {
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            port: 0,
            password,
        };
        let mut cluster = Self {
            server: Mutex::new(None),
            directory,
            options,
            endpoint,
        };
        for attempt in 1.. {
            cluster.endpoint.port = crate::free_port();
            layout::configure(cluster.directory.path(), cluster.endpoint.port, &cluster.options);
            match cluster.launch().await {
                Ok(()) => break,
                Err(log) if attempt < ATTEMPTS && log.contains("Address already in use") => {}
                Err(log) => panic!("PostgreSQL did not start: {log}"),
            }
        }
        cluster
    }

    /// Where the cluster listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The port it listens on, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// The directory of its Unix-domain socket.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr.log")).unwrap_or_default()
    }

    /// The superuser's URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.endpoint.url(&self.endpoint.superuser(), SUPERUSER)
    }

    /// Connects to the database `postgres` as the superuser.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect(&self) -> Connection {
        self.endpoint.connect(&self.endpoint.superuser(), SUPERUSER).await
    }

    /// A fresh, empty database with a random name.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_database(&self) -> Database {
        Database::create(self.endpoint.clone(), None).await
    }

    /// A copy of `template` (a migrated database, say), which must have no connections now.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn copy_database(&self, template: &Database) -> Database {
        Database::create(self.endpoint.clone(), Some(template.name())).await
    }

    /// A role that can log in, with a random name and password and these attributes, e.g. `"CREATEDB"` or
    /// `""`.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_login(&self, attributes: &str) -> Login {
        let login = Login {
            user: random::name("role"),
            password: random::password(),
        };
        let sql = format!(
            "CREATE ROLE {} LOGIN PASSWORD '{}' {attributes}",
            login.user, login.password
        );
        let created = self.connect().await.batch_execute(&sql).await;
        created.unwrap_or_else(|error| panic!("creating a role with {attributes:?}: {error:?}"));
        login
    }

    /// Stops the server in "fast" mode: sessions are ended. Its data, port and password stay.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&self) {
        self.end(Signal::INT).await;
    }

    /// Stops the server in "immediate" mode, as a crash would: sessions break off and the next start
    /// recovers.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn crash(&self) {
        self.end(Signal::QUIT).await;
    }

    /// Starts the server again after [`Cluster::stop`] or [`Cluster::crash`].
    ///
    /// # Panics
    /// When it runs already or does not start; the text has the server's log.
    pub async fn start_again(&self) {
        assert!(self.server().is_none(), "this cluster runs already");
        self.launch()
            .await
            .unwrap_or_else(|log| panic!("PostgreSQL did not start again: {log}"));
    }

    /// Stops the server in "fast" mode and starts it.
    ///
    /// # Panics
    /// When either fails.
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Stops the postmaster where it is (SIGSTOP): it accepts no new connections, and those that exist go on.
    pub fn freeze(&self) {
        if let Some(server) = self.server().as_ref() {
            server.freeze();
        }
    }

    /// Lets a frozen postmaster go on.
    pub fn thaw(&self) {
        if let Some(server) = self.server().as_ref() {
            server.thaw();
        }
    }

    /// Ends one backend (its client gets 57P01) and waits until it is gone.
    ///
    /// # Panics
    /// When it stays.
    pub async fn kill_backend(&self, pid: i32) {
        let connection = self.connect().await;
        connection
            .execute("SELECT pg_terminate_backend($1)", &[&pid])
            .await
            .expect("a superuser may end backends");
        eventually(DEADLINE, &format!("backend {pid} is gone"), async || {
            let query = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)";
            connection
                .query_one(query, &[&pid])
                .await
                .is_ok_and(|row| row.get(0))
        })
        .await;
    }

    /// The number of client backends now, without the one that asks.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn client_backends(&self) -> i64 {
        let query = "SELECT count(*) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.connect()
            .await
            .query_one(query, &[])
            .await
            .expect("activity can be read")
            .get(0)
    }

    async fn launch(&self) -> Result<(), String> {
        let root = self.directory.path();
        let logged = self.log_text().len();
        let server = layout::tool(root, "postgres")
            .args(["-D".as_ref(), layout::data(root).as_os_str()])
            .stop_signal(Signal::INT)
            .spawn();
        let end = Instant::now() + DEADLINE;
        loop {
            let refused = match self
                .endpoint
                .try_connect(&self.endpoint.superuser(), SUPERUSER)
                .await
            {
                Ok(_) if server.is_running() => break,
                Ok(_) => "Address already in use by another PostgreSQL".to_owned(),
                Err(error) => format!("{error:?}"),
            };
            if Instant::now() >= end || !server.is_running() {
                let log = self.log_text();
                let log = log.get(logged..).unwrap_or_default();
                return Err(format!("last connection: {refused}; the server's log:\n{log}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        *self.server() = Some(server);
        Ok(())
    }

    async fn end(&self, signal: Signal) {
        let server = self.server().take();
        if let Some(server) = server {
            server.thaw();
            server.signal(signal);
            server.wait_exit(DEADLINE).await;
        }
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
