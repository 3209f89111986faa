//! The files of a test cluster: its temporary directory, initdb, postgresql.conf, pg_hba.conf.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{ClusterOptions, DEADLINE};
use crate::database::SUPERUSER;
use crate::process::{Process, ProcessBuilder};
use crate::programs::{postgres_program, search_path};
use crate::unprivileged::hand_over;

/// Lets the harness in whatever a test's own rules say.
const HARNESS_RULE: &str = "host all postgres 127.0.0.1/32 scram-sha-256\n";

const DEFAULT_RULES: &str = "\
local all all scram-sha-256
host all all 127.0.0.0/8 scram-sha-256
host all all ::1/128 scram-sha-256
host replication all 127.0.0.0/8 scram-sha-256
";

/// A temporary directory that the server's OS user owns.
pub(super) fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("pgmoor-cluster-")
        .tempdir()
        .expect("a temporary directory");
    hand_over(directory.path());
    directory
}

/// The data directory.
pub(super) fn data(root: &Path) -> PathBuf {
    root.join("data")
}

/// Runs initdb with SCRAM and the superuser's password.
pub(super) async fn initdb(root: &Path, password: &str) {
    let password_file = root.join("password");
    write(&password_file, password);
    let initdb = tool(root, "initdb")
        .args([
            "--no-sync",
            "--no-instructions",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ])
        .args(["--auth=scram-sha-256", "--username", SUPERUSER])
        .arg("--pwfile")
        .arg(&password_file)
        .arg("-D")
        .arg(data(root));
    run(initdb).await;
    let _ = std::fs::remove_file(password_file);
}

/// Writes postgresql.conf and pg_hba.conf, replacing what initdb or pg_basebackup left.
pub(super) fn configure(root: &Path, port: u16, options: &ClusterOptions) {
    let data = data(root);
    let socket_directory = root.display().to_string();
    let port = port.to_string();
    let mut settings: Vec<(&str, &str)> = vec![
        ("port", &port),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", &socket_directory),
        ("max_connections", "100"),
        ("shared_buffers", "32MB"),
        // Nothing here outlives the machine: durability would only cost time.
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("wal_level", "replica"),
        ("max_wal_senders", "5"),
        ("hot_standby", "on"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ];
    if let Some(identity) = &options.ssl {
        let files = identity.write_to(&data);
        for file in [&files.certificate, &files.key, &files.authority] {
            hand_over(file);
        }
        let (certificate, key, authority) = crate::tls::FILE_NAMES;
        settings.extend([("ssl", "on"), ("ssl_cert_file", certificate)]);
        settings.extend([("ssl_key_file", key), ("ssl_ca_file", authority)]);
    }
    settings.extend(
        options
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let mut text = String::new();
    for (name, value) in settings {
        // A later line wins over an earlier one (PostgreSQL manual, 20.1.2).
        writeln!(text, "{name} = '{}'", value.replace('\'', "''")).expect("writing to a String succeeds");
    }
    write(&data.join("postgresql.conf"), &text);
    let rules = options.hba.as_deref().unwrap_or(DEFAULT_RULES);
    write(&data.join("pg_hba.conf"), &format!("{HARNESS_RULE}{rules}\n"));
}

/// A PostgreSQL program about to run as the server's OS user, with next to no environment.
pub(super) fn tool(root: &Path, name: &str) -> ProcessBuilder {
    let builder = Process::builder(postgres_program(name)).env_clear();
    builder
        .env("PATH", search_path())
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .unprivileged()
        .directory(root)
}

/// Runs a PostgreSQL program to its end.
pub(super) async fn run(tool: ProcessBuilder) {
    let process = tool.spawn();
    let exit = process.wait_exit(DEADLINE).await;
    assert!(exit.success(), "{}", process.description());
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    hand_over(path);
}
