//! The commands an operator runs before the first process starts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Process, pgmoor_binary};

use crate::Role;

/// How long a command may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What commands wrote, kept for looking for secrets.
pub type Log = String;

/// Runs `pgmoor` with these arguments to its end and returns what it wrote.
///
/// # Panics
/// When it fails; the text has what it wrote.
pub async fn run(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Log {
    let process = Process::builder(pgmoor_binary()).args(words).spawn();
    let exit = process.wait_exit(DEADLINE).await;
    let log = process.log_text();
    assert!(exit.success(), "pgmoor ended with {exit}: {log}");
    log
}

/// Brings the schema of the config database up to date, as its owner.
pub async fn migrate(configuration: &Path) -> Log {
    run([
        OsStr::new("migrate"),
        "--config".as_ref(),
        configuration.as_os_str(),
    ])
    .await
}

/// Makes the key pair that seals passwords: the public half in the config database, the other in a file.
pub async fn create_sealing_key(configuration: &Path, file: &Path) -> Log {
    run([
        OsStr::new("admin"),
        "create-sealing-key".as_ref(),
        "--config".as_ref(),
        configuration.as_os_str(),
        "--out".as_ref(),
        file.as_os_str(),
    ])
    .await
}

/// Makes the key that API instances share for logins with a provider.
pub async fn create_login_key(file: &Path) -> Log {
    run([
        OsStr::new("admin"),
        "create-login-key".as_ref(),
        "--out".as_ref(),
        file.as_os_str(),
    ])
    .await
}

/// Makes the first superuser, with the password from a file.
pub async fn create_user(configuration: &Path, username: &str, password_file: &Path) -> Log {
    run([
        OsStr::new("admin"),
        "create-user".as_ref(),
        "--config".as_ref(),
        configuration.as_os_str(),
        "--username".as_ref(),
        username.as_ref(),
        "--administrator".as_ref(),
        "--password-file".as_ref(),
        password_file.as_os_str(),
    ])
    .await
}

/// A process's certificate and key, and the authority that issued them.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The process's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificate {
    /// Where [`issue_certificate`] leaves the files.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self {
            authority: directory.join("authority.pem"),
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        }
    }
}

/// Issues a certificate to a process, making the authority with the first one.
pub async fn issue_certificate(authority: &Path, role: Role, name: &str, directory: &Path) -> Log {
    run([
        OsStr::new("admin"),
        "issue-certificate".as_ref(),
        "--role".as_ref(),
        role.as_str().as_ref(),
        "--name".as_ref(),
        name.as_ref(),
        "--ip".as_ref(),
        "127.0.0.1".as_ref(),
        "--ca-dir".as_ref(),
        authority.as_os_str(),
        "--out".as_ref(),
        directory.as_os_str(),
    ])
    .await
}
