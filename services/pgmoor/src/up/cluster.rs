//! The private PostgreSQL cluster of `pgmoor up`.
//!
//! It listens on loopback only and asks for a password nobody else knows. It is stopped when pgmoor stops; when pgmoor is
//! killed it goes on, and the next start adopts it.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use domain::random::Random;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::binaries::{Binaries, BinariesError};
use super::data_directory::DataDirectory;
use super::os_user::{NoOsUser, OsUser};
use crate::private_file::{self, Existing, PRIVATE};

/// The cluster's superuser, and the owner of the config database in it.
pub(crate) const SUPERUSER: &str = "pgmoor";
/// How long the server may take to accept connections; recovery after a crash included.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server may take to stop before it is told to stop at once.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often its state is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Lines of its log that an error shows.
const LOG_LINES: usize = 12;

/// Why the private cluster does not run.
#[derive(Debug, Error)]
pub(crate) enum ClusterError {
    /// No programs to run it with.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// Nobody to run it as.
    #[error(transparent)]
    OsUser(#[from] NoOsUser),
    /// A program failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// The server does not answer.
    #[error("PostgreSQL does not accept connections; the end of {log}:\n{lines}")]
    NotReady {
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        lines: String,
    },
    /// A server that runs in our data directory does not know our password.
    #[error(
        "a PostgreSQL server (process {pid}) runs in {data} but does not take the password kept beside it"
    )]
    NotOurs {
        /// The server's process.
        pid: i32,
        /// Its data directory.
        data: PathBuf,
    },
    /// It did not stop.
    #[error("PostgreSQL (process {pid}) did not stop")]
    NotStopped {
        /// Its process.
        pid: i32,
    },
    /// The file system or the kernel said no.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::Io { what, source }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pid: Pid,
    port: u16,
    password: SecretString,
}

impl Cluster {
    /// Starts the cluster in the data directory, making it on the first start and adopting it where it runs already.
    pub(crate) async fn start(
        directory: &DataDirectory,
        path: Option<&std::ffi::OsString>,
        random: &dyn Random,
    ) -> anyhow::Result<Self> {
        let password = directory.secret("postgres-password", random)?;
        let home = Home::open(directory)?;
        if let Some(postmaster) = Postmaster::running(&home.data) {
            return Ok(Self::adopt(postmaster, &home, password).await?);
        }
        let binaries = Binaries::find(&home.data, path).map_err(ClusterError::from)?;
        if !home.data.join("PG_VERSION").exists() {
            home.initialise(&binaries, &password)?;
        }
        Ok(home.run(&binaries, password).await?)
    }

    async fn adopt(
        postmaster: Postmaster,
        home: &Home,
        password: SecretString,
    ) -> Result<Self, ClusterError> {
        let cluster = Self {
            pid: postmaster.pid,
            port: postmaster.port,
            password,
        };
        match cluster.until_ready(home).await {
            Ok(()) => {
                tracing::info!(
                    postgres.pid = cluster.pid.as_raw_pid(),
                    "adopted the running PostgreSQL"
                );
                Ok(cluster)
            }
            Err(Readiness::Refused) => Err(ClusterError::NotOurs {
                pid: cluster.pid.as_raw_pid(),
                data: home.data.clone(),
            }),
            Err(Readiness::Never) => Err(home.not_ready()),
        }
    }

    /// The URL of a database in it, for the superuser.
    pub(crate) fn url(&self, database: &str) -> SecretString {
        self.url_as(SUPERUSER, &self.password, database)
    }

    /// The URL of a database in it, for another role.
    pub(crate) fn url_as(&self, role: &str, password: &SecretString, database: &str) -> SecretString {
        // The names are ours and the password is hexadecimal: nothing to escape.
        let password = password.expose_secret();
        SecretString::from(format!(
            "postgres://{role}:{password}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        ))
    }

    /// Connects as the superuser. The task that drives the connection ends with the client.
    pub(crate) async fn connect(
        &self,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(self.url(database).expose_secret(), tokio_postgres::NoTls).await?;
        #[allow(clippy::disallowed_methods, reason = "ends when the client is dropped")]
        tokio::spawn(connection);
        Ok(client)
    }

    async fn until_ready(&self, home: &Home) -> Result<(), Readiness> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.connect("postgres").await {
                Ok(_) => return Ok(()),
                // 28P01, 28000: it is up, and not ours.
                Err(error) if error.code().is_some_and(|code| code.code().starts_with("28")) => {
                    return Err(Readiness::Refused);
                }
                Err(_) if Instant::now() > deadline || Postmaster::running(&home.data).is_none() => {
                    return Err(Readiness::Never);
                }
                Err(_) => sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Stops the cluster: connections are cut, everything committed is kept.
    pub(crate) async fn stop(self) -> Result<(), ClusterError> {
        // Fast shutdown, then immediate shutdown (PostgreSQL manual, 19.5).
        for (signal, within) in [(Signal::INT, STOP_TIMEOUT), (Signal::QUIT, STOP_TIMEOUT / 6)] {
            if kill_process(self.pid, signal).is_err() {
                return Ok(());
            }
            let deadline = Instant::now() + within;
            while Instant::now() < deadline {
                if !is_alive(self.pid) {
                    return Ok(());
                }
                sleep(LOOK_INTERVAL).await;
            }
        }
        Err(ClusterError::NotStopped {
            pid: self.pid.as_raw_pid(),
        })
    }
}

enum Readiness {
    Refused,
    Never,
}

/// Where the cluster lives.
#[derive(Debug)]
struct Home {
    data: PathBuf,
    log: PathBuf,
    user: Option<OsUser>,
}

impl Home {
    fn open(directory: &DataDirectory) -> anyhow::Result<Self> {
        let user = OsUser::for_postgres().map_err(ClusterError::from)?;
        // initdb makes `data` itself, as the user it runs as, in a directory of that user.
        let home = directory.make("postgres")?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&home, Some(user.uid), Some(user.gid))
                .map_err(io_error("handing the cluster's directory over"))?;
        }
        Ok(Self {
            data: home.join("data"),
            log: directory.path("postgres.log"),
            user,
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C in the terminal is for pgmoor, which stops the server in order.
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .process_group(0);
        command.current_dir("/");
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn initialise(&self, binaries: &Binaries, password: &SecretString) -> Result<(), ClusterError> {
        // A first start that was cut off leaves half a cluster, which initdb would refuse.
        if self.data.exists() {
            std::fs::remove_dir_all(&self.data).map_err(io_error("removing a half-made cluster"))?;
        }
        let password_file = self.data.with_file_name("initial-password");
        private_file::write(
            &password_file,
            password.expose_secret().as_bytes(),
            PRIVATE,
            Existing::Replace,
        )
        .map_err(|error| ClusterError::Program {
            program: "initdb",
            output: format!("{error:#}"),
        })?;
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&password_file, Some(user.uid), Some(user.gid))
                .map_err(io_error("handing the initial password over"))?;
        }
        let output = self
            .command(&binaries.program("initdb"))
            .arg("--pgdata")
            .arg(&self.data)
            .arg("--pwfile")
            .arg(&password_file)
            .args([
                "--username",
                SUPERUSER,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C.UTF-8",
            ])
            .arg("--data-checksums")
            .output();
        std::fs::remove_file(&password_file).map_err(io_error("removing the initial password"))?;
        let output = output.map_err(io_error("running initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(ClusterError::Program {
            program: "initdb",
            output: said,
        })
    }

    async fn run(&self, binaries: &Binaries, password: SecretString) -> Result<Cluster, ClusterError> {
        let port = free_port().map_err(io_error("looking for a free port"))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(io_error("opening the cluster's log"))?;
        let mut postgres = self.command(&binaries.program("postgres"));
        postgres.arg("-D").arg(&self.data).arg("-p").arg(port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=100",
            "logging_collector=off",
            "log_destination=stderr",
        ] {
            postgres.args(["-c", setting]);
        }
        let errors = log.try_clone().map_err(io_error("opening the cluster's log"))?;
        let child = postgres
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(io_error("starting postgres"))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| self.not_ready())?;
        // Reaped by a thread, so that a server that has stopped does not look alive as a zombie.
        std::thread::Builder::new()
            .name("postgres-reaper".to_owned())
            .spawn(move || {
                let mut child = child;
                // Its exit status tells nothing that its log does not.
                let _ = child.wait();
            })
            .map_err(io_error("waiting for postgres"))?;
        let cluster = Cluster { pid, port, password };
        self.until_listed(pid).await?;
        cluster.until_ready(self).await.map_err(|_| self.not_ready())?;
        Ok(cluster)
    }

    /// Waits for the server to write its pid file, so that readiness can watch that.
    async fn until_listed(&self, pid: Pid) -> Result<(), ClusterError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Postmaster::running(&self.data).is_none_or(|postmaster| postmaster.pid != pid) {
            if !is_alive(pid) || Instant::now() > deadline {
                return Err(self.not_ready());
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    fn not_ready(&self) -> ClusterError {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
        lines.reverse();
        ClusterError::NotReady {
            log: self.log.clone(),
            lines: lines.join("\n"),
        }
    }
}

/// What `postmaster.pid` says, when the process it names really is that server.
#[derive(Debug)]
struct Postmaster {
    pid: Pid,
    port: u16,
}

impl Postmaster {
    fn running(data: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().and_then(Pid::from_raw)?;
        let port = lines.nth(2)?.trim().parse().ok()?;
        // A process id may have been given to another program since; the server's working directory is its data.
        let its_directory = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_pid())).ok()?;
        (its_directory == data.canonicalize().ok()?).then_some(Self { pid, port })
    }
}

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

fn free_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()
        .map(|address| address.port())
}
