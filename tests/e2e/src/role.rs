//! A process of one role, which can be killed and started again.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Process, eventually, pgmoor_binary};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::Client;

/// How long a process may take until it serves, or until it has stopped.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The public API.
    Api,
    /// Backends and sessions.
    Pooler,
    /// Operations.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Api, Self::Pooler, Self::Worker];

    /// The word of the command line and of certificates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Pooler => "pooler",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process of one role.
#[derive(Debug)]
pub struct RoleProcess {
    role: Role,
    name: String,
    directory: PathBuf,
    port: u16,
    metrics_port: u16,
    process: Option<Process>,
}

impl RoleProcess {
    /// Starts the process on the configuration file `pgmoor.toml` of its directory, where its logs go too,
    /// and waits until it serves.
    ///
    /// # Panics
    /// When it does not serve; the text has its log.
    pub async fn start(role: Role, name: String, directory: PathBuf, port: u16, metrics_port: u16) -> Self {
        let mut role_process = Self {
            role,
            name,
            directory,
            port,
            metrics_port,
            process: None,
        };
        role_process.start_again().await;
        role_process
    }

    /// Starts it again, on the same port, and waits until it serves.
    ///
    /// # Panics
    /// When it runs, or does not serve; the text has its log.
    pub async fn start_again(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let process = Process::builder(pgmoor_binary())
            .arg(self.role.as_str())
            .arg("--config")
            .arg(self.directory.join("pgmoor.toml"))
            .env_clear()
            .env("PATH", harness::programs::search_path())
            .name(&self.name)
            .directory(&self.directory)
            .spawn();
        let what = format!("{} serves", self.name);
        eventually(DEADLINE, &what, async || {
            assert!(
                process.is_running(),
                "{} ended: {}",
                self.name,
                process.log_text()
            );
            let ready = self.is_ready().await;
            ready.map_err(|reason| format!("{reason}; it wrote: {}", process.log_text()))
        })
        .await;
        self.process = Some(process);
    }

    /// Its name, for example `api-0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it answers Prometheus.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn scrape(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port)).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// Where it listens, for a gRPC client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    /// Its process id; none while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let running = self.process.as_ref().filter(|process| process.is_running());
        running.map(Process::pid)
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    pub async fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill9();
            process.wait_exit(DEADLINE).await;
        }
    }

    /// Stops it where it is: it answers nothing, and its connections stay open.
    pub fn freeze(&self) {
        if let Some(process) = &self.process {
            process.freeze();
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        if let Some(process) = &self.process {
            process.thaw();
        }
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        if let Some(process) = &self.process {
            process.terminate();
        }
    }

    /// Waits until it has ended, which it was asked to before.
    pub async fn wait_until_ended(&mut self) {
        if let Some(process) = self.process.take() {
            process.wait_exit(DEADLINE).await;
        }
    }

    /// Asks it to stop and waits until it has, returning whether it ended well.
    pub async fn stop(&mut self) -> bool {
        let Some(process) = self.process.take() else {
            return true;
        };
        process.terminate();
        process.wait_exit(DEADLINE).await.success()
    }

    /// Everything it has logged, before it was killed too.
    #[must_use]
    pub fn log_text(&self) -> String {
        ["stdout.log", "stderr.log"]
            .map(|file| std::fs::read(self.directory.join(file)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat()
    }

    /// Waits until an API instance has found a pooler to serve sessions.
    ///
    /// # Panics
    /// When it finds none; the text has its log.
    pub async fn wait_for_sessions(&self) {
        let service = rpc::query::v1::query_service_server::SERVICE_NAME;
        eventually(DEADLINE, &format!("{} serves sessions", self.name), async || {
            let serving = self.is_serving(service).await;
            serving.map_err(|reason| format!("{reason}; it wrote: {}", self.log_text()))
        })
        .await;
    }

    /// Asks an API instance for the health of a service; `""` is the whole.
    async fn is_serving(&self, service: &str) -> Result<(), String> {
        let mut health = HealthClient::new(Client::anonymous(&self.url()).channel());
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await;
        let status = answer.map_err(|status| status.to_string())?.into_inner().status();
        if status == ServingStatus::Serving {
            Ok(())
        } else {
            Err(format!("health says {status:?}"))
        }
    }

    async fn is_ready(&self) -> Result<(), String> {
        match self.role {
            Role::Api => self.is_serving("").await,
            Role::Pooler => {
                let connected = TcpStream::connect(("127.0.0.1", self.port)).await;
                connected.map(|_| ()).map_err(|error| error.to_string())
            }
            // A worker listens nowhere: the first operation tells whether it works.
            Role::Worker => Ok(()),
        }
    }
}
