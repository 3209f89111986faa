//! Finds the programs tests run: PostgreSQL's (which Debian keeps off the PATH), nginx.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory of PostgreSQL's server binaries: that of `postgres` on the PATH, else the newest
/// `/usr/lib/postgresql/*/bin`, else what `pg_config --bindir` says.
///
/// # Panics
/// When no PostgreSQL server is installed.
#[must_use]
pub fn postgres_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        postgres_on_path()
            .or_else(newest_debian_postgres)
            .or_else(postgres_of_pg_config)
            .expect("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    })
}

/// A program of PostgreSQL's, e.g. `pg_basebackup`.
///
/// # Panics
/// When no PostgreSQL server is installed.
#[must_use]
pub fn postgres_program(name: &str) -> PathBuf {
    postgres_directory().join(name)
}

/// The nginx binary.
///
/// # Panics
/// When nginx is not installed.
#[must_use]
pub fn nginx() -> PathBuf {
    on_path("nginx").expect("nginx is not installed (Debian: apt-get install nginx); script/test installs it")
}

/// The first executable of that name on the PATH, or in the directories of administration that an ordinary
/// user's PATH lacks on Debian.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = search_path();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// The PATH of this process, to be handed to programs that get an otherwise empty environment.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "programs are looked up where the user's shell would look"
)]
pub fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

fn postgres_on_path() -> Option<PathBuf> {
    // A link on the PATH leads to the directory that has the other programs too.
    let postgres = on_path("postgres")?.canonicalize().ok()?;
    let directory = postgres.parent()?.to_path_buf();
    directory.join("initdb").is_file().then_some(directory)
}

fn newest_debian_postgres() -> Option<PathBuf> {
    std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let directory = entry.path().join("bin");
            directory
                .join("postgres")
                .is_file()
                .then_some((version, directory))
        })
        .max()
        .map(|(_, directory)| directory)
}

fn postgres_of_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    directory.join("postgres").is_file().then_some(directory)
}
