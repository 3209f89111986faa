//! PgBouncer in front of a cluster, to be compared with.

use std::net::Ipv4Addr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::database::Login;
use crate::process::Process;
use crate::unprivileged::hand_over;
use crate::{eventually, free_port, programs};

/// A running PgBouncer of this process, listening on 127.0.0.1 and pooling transactions.
#[derive(Debug)]
pub struct PgBouncer {
    // Declared before the directory: the server stops before its files go.
    _server: Process,
    _directory: TempDir,
    port: u16,
}

impl PgBouncer {
    /// Starts it in front of a cluster's port, with `pool_size` connections as `login`. Nothing where it is not
    /// installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(cluster_port: u16, login: &Login, pool_size: usize) -> Option<Self> {
        let program = programs::on_path("pgbouncer")?;
        let directory = tempfile::Builder::new()
            .prefix("pgmoor-pgbouncer-")
            .tempdir()
            .expect("a temporary directory");
        hand_over(directory.path());
        let port = free_port();
        let configuration = directory.path().join("pgbouncer.ini");
        let Login { user, password } = login;
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={cluster_port} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\n\
             max_client_conn = 1000\nlog_connections = 0\nlog_disconnections = 0\n"
        );
        std::fs::write(&configuration, text).expect("PgBouncer's configuration file");
        hand_over(&configuration);
        let server = Process::builder(program)
            .args([configuration.as_os_str()])
            .unprivileged()
            .directory(directory.path())
            .spawn();
        eventually(
            Duration::from_secs(20),
            "PgBouncer accepts connections",
            async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await,
        )
        .await;
        Some(Self {
            _server: server,
            _directory: directory,
            port,
        })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
