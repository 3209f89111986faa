//! `pgmoor up`: everything in one process, with nothing configured.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Process, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::command::{Ended, SOON, pgmoor_in};

/// A first start runs initdb.
const START: Duration = Duration::from_secs(90);

/// A place for `up`. Dropped, it takes along the PostgreSQL that a killed `up` left running.
struct Place {
    directory: TempDir,
    port: u16,
    metrics_port: u16,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // As root, PostgreSQL runs as another user, who must get through.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self {
            directory,
            port: free_port(),
            metrics_port: free_port(),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn arguments(&self) -> [String; 5] {
        let listen = format!("127.0.0.1:{}", self.port);
        [
            "up".into(),
            "--data-dir".into(),
            self.data().display().to_string(),
            "--listen".into(),
            listen,
        ]
    }

    async fn start(&self) -> Process {
        let process = Process::builder(env!("CARGO_BIN_EXE_pgmoor"))
            .env_clear()
            .env(
                "PGMOOR_METRICS__LISTEN",
                format!("127.0.0.1:{}", self.metrics_port),
            )
            .args(self.arguments())
            .name("pgmoor up")
            .spawn();
        process.wait_for_line("pgmoor serves on", START).await;
        process
    }

    /// Runs the command where it must fail, and gives what it said.
    fn refused(&self) -> String {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        pgmoor_in(self.directory.path(), &arguments, &[], "").failed(1)
    }

    fn client(&self, arguments: &[&str], input: &str) -> Ended {
        let (home, url) = (self.directory.path().display().to_string(), self.url());
        let environment = [("HOME", home.as_str()), ("PGMOOR_URL", url.as_str())];
        pgmoor_in(self.directory.path(), arguments, &environment, input)
    }

    /// What it answers Prometheus.
    fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postgres/data/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(postmaster) = self.postmaster() {
            // Gone already is as good.
            let _ = kill_process(postmaster, Signal::QUIT);
        }
    }
}

#[tokio::test]
async fn up_needs_nothing_and_finds_its_data_again() {
    let place = Place::new();
    let up = place.start().await;
    let said = up.stdout_text();
    let password = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("password:"))
        .expect(&said);
    let password = password.split_whitespace().next().unwrap();
    place
        .client(
            &["login", "--user", "admin", "--password-stdin"],
            &format!("{password}\n"),
        )
        .succeeded();
    place
        .client(&["settings", "set", "query.row_limit", "7"], "")
        .succeeded();
    assert!(!up.stderr_text().contains(password), "the password is in the log");
    let figures = place.scrape();
    assert!(figures.contains("pgmoor_build_info{role=\"up\""), "{figures}");
    assert!(figures.contains("\npgmoor_sessions 0.0\n"), "{figures}");

    // Killed: PostgreSQL goes on, and the next start adopts it.
    up.kill9();
    up.wait_exit(SOON).await;
    let orphan = place.postmaster().unwrap();
    test_kill_process(orphan).unwrap();
    let again = place.start().await;
    assert_eq!(place.postmaster(), Some(orphan));
    assert!(!again.stdout_text().contains("password:"), "shown twice");
    let limit = place
        .client(&["settings", "get", "query.row_limit"], "")
        .succeeded();
    assert!(limit.contains('7'), "{limit}");

    // Asked to stop: PostgreSQL stops too.
    again.terminate();
    assert!(again.wait_exit(SOON).await.success(), "{}", again.log_text());
    eventually(SOON, "PostgreSQL has stopped", async || {
        test_kill_process(orphan).is_err()
    })
    .await;

    let third = place.start().await;
    place.client(&["whoami"], "").succeeded();
    third.terminate();
    assert!(third.wait_exit(SOON).await.success(), "{}", third.log_text());
}

#[tokio::test]
async fn data_directory_in_use_or_of_others_is_refused() {
    let place = Place::new();
    let up = place.start().await;
    let other = Place {
        port: free_port(),
        metrics_port: free_port(),
        directory: tempfile::tempdir().unwrap(),
    };
    let arguments = [
        "up",
        "--data-dir",
        &place.data().display().to_string(),
        "--listen",
        &format!("127.0.0.1:{}", other.port),
    ];
    let said = pgmoor_in(place.directory.path(), &arguments, &[], "").failed(1);
    assert!(said.contains("is in use by process"), "{said}");
    assert!(place.refused().contains("is taken by another process"));

    std::fs::create_dir(other.data()).unwrap();
    std::fs::write(other.data().join("thesis.txt"), "").unwrap();
    let said = other.refused();
    assert!(said.contains("was not made by pgmoor up"), "{said}");
    up.terminate();
    assert!(up.wait_exit(SOON).await.success(), "{}", up.log_text());
}
