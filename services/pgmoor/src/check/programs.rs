//! Whether PostgreSQL's client programs are there, which workers run.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use config::Environment;
use tokio::process::Command;
use tokio::time::timeout;

use super::Finding;

/// What workers run.
const PROGRAMS: [&str; 3] = ["pg_dump", "pg_restore", "psql"];
/// Where Debian keeps the versions it has, off the PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks each program that is found for its version.
pub(crate) async fn look(environment: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    for program in PROGRAMS {
        let mut versions = Vec::new();
        for path in candidates(program, environment) {
            if let Some(version) = version(&path).await {
                versions.push(format!("{version} in {}", path.display()));
            }
        }
        findings.push(if versions.is_empty() {
            let text = "is not installed: workers need it (Debian: apt-get install postgresql-client)";
            Finding::failed(program, text)
        } else {
            Finding::fine(program, versions.join(", "))
        });
    }
    findings
}

fn candidates(program: &str, environment: &Environment) -> Vec<PathBuf> {
    let path = environment.get("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(path).collect();
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    directories.extend(versions.map(|version| version.path().join("bin")));
    directories
        .into_iter()
        .map(|directory| directory.join(program))
        .filter(|path| path.is_file())
        .collect()
}

async fn version(program: &PathBuf) -> Option<String> {
    let asked = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, asked).await.ok()?.ok()?;
    // `pg_dump (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)`
    let text = String::from_utf8(output.stdout).ok()?;
    text.split(')')
        .nth(1)?
        .split_whitespace()
        .next()
        .map(str::to_owned)
}
