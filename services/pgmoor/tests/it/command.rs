//! Running the program with an environment of the test's own.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::{Database, Process};

/// How long a command or a start may take.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgmoor");

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard error of a command that must fail with this status.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }
}

/// Runs a command to its end. Variables of the test process do not reach it.
pub(crate) fn pgmoor(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    pgmoor_in(Path::new("/"), arguments, environment, "")
}

/// As [`pgmoor`], in a working directory and with this on standard input.
pub(crate) fn pgmoor_in(
    directory: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: &str,
) -> Ended {
    use std::io::Write;

    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Ended {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Starts a role, which ends with the test.
pub(crate) fn role(name: &str, environment: &[(&str, &str)]) -> Process {
    let mut builder = Process::builder(PROGRAM)
        .env_clear()
        .arg(name)
        .name(format!("pgmoor {name}"));
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    builder.spawn()
}

/// A migrated config database.
pub(crate) async fn migrated() -> Database {
    let database = harness::Cluster::shared().await.create_database().await;
    pgmoor(&["migrate"], &[("PGMOOR_CONFIG_DATABASE_URL", &database.url())]).succeeded();
    database
}
