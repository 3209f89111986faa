//! The installed PostgreSQL programs that a private cluster needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// The oldest PostgreSQL a config database may run on.
const OLDEST_MAJOR: u32 = 14;

/// The directories that distributions install PostgreSQL to, besides `PATH`. `*` stands for a version.
const USUAL_PLACES: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
];

/// Why no programs can be used.
#[derive(Debug, Error)]
pub(crate) enum BinariesError {
    /// There are none.
    #[error(
        "no PostgreSQL server of version {OLDEST_MAJOR} or later is installed; install one (Debian, Ubuntu: apt-get install \
         postgresql), or name a config database with PGMOOR_CONFIG_DATABASE_URL"
    )]
    NotInstalled,
    /// There are some, but not of the version that made the data.
    #[error(
        "the data in {directory} was made by PostgreSQL {wanted}, which is not installed (found: {found}); install \
         PostgreSQL {wanted}"
    )]
    OtherVersion {
        /// The data directory.
        directory: PathBuf,
        /// The major version that made it.
        wanted: u32,
        /// The major versions that are installed.
        found: String,
    },
}

/// The programs of one PostgreSQL version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest installed version, or the one that made the cluster in `data` where there is one.
    pub(crate) fn find(data: &Path, path: Option<&OsString>) -> Result<Self, BinariesError> {
        let installed = installed(path);
        let Some(wanted) = major_of_cluster(data) else {
            return installed
                .into_iter()
                .max_by_key(|binaries| binaries.major)
                .ok_or(BinariesError::NotInstalled);
        };
        let found = installed
            .iter()
            .map(|binaries| binaries.major.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        installed
            .into_iter()
            .find(|binaries| binaries.major == wanted)
            .ok_or(BinariesError::OtherVersion {
                directory: data.to_owned(),
                wanted,
                found: if found.is_empty() {
                    "none".to_owned()
                } else {
                    found
                },
            })
    }

    /// The path of one of the programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// `PG_VERSION` names the major version that made a data directory.
fn major_of_cluster(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn installed(path: Option<&OsString>) -> Vec<Binaries> {
    let on_path = path
        .into_iter()
        .flat_map(std::env::split_paths)
        .filter(|directory| directory.is_absolute());
    let mut found: Vec<Binaries> = Vec::new();
    for directory in USUAL_PLACES.into_iter().flat_map(expand).chain(on_path) {
        // A symbolic link in /usr/local/bin is followed: the server looks for its files beside the real program.
        let Ok(postgres) = directory.join("postgres").canonicalize() else {
            continue;
        };
        let Some(directory) = postgres.parent().map(Path::to_owned) else {
            continue;
        };
        let Some(major) = major_of_program(&postgres) else {
            continue;
        };
        let usable = major >= OLDEST_MAJOR && directory.join("initdb").exists();
        if usable && !found.iter().any(|binaries| binaries.major == major) {
            found.push(Binaries { directory, major });
        }
    }
    found
}

fn expand(pattern: &'static str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
        .into_iter()
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is of major version 15.
fn major_of_program(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres)
        .arg("--version")
        .env_clear()
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_server_is_found() {
        let nowhere = tempfile::tempdir().unwrap();
        let binaries = Binaries::find(nowhere.path(), None).unwrap();
        assert!(binaries.program("postgres").exists());
        assert!(binaries.major >= OLDEST_MAJOR);
    }

    #[test]
    fn data_of_another_version_asks_for_that_version() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("PG_VERSION"), "9\n").unwrap();
        let error = Binaries::find(data.path(), None).unwrap_err();
        assert!(
            matches!(error, BinariesError::OtherVersion { wanted: 9, .. }),
            "{error}"
        );
    }
}
