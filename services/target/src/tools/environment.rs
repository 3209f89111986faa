//! What a program is given besides its arguments: an environment and a private directory with its password.
//!
//! Invariants: the environment is made from nothing; every variable of libpq that could lead elsewhere is set. The passfile
//! has one line per endpoint that fits exactly this host, port, database and role, so that a redirected connection gets no
//! password. The directory is readable by the program's user only and gone when the value is dropped.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::endpoint::SslMode;
use domain::name::Identifier;
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use thiserror::Error;

use super::process::OsUser;
use crate::resolve::{Resolved, ResolvedEndpoint};

/// Where operating systems keep the certificates they trust, as one file.
const TRUSTED: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/ca-certificates/cert.pem",
];

/// Why a program has no environment to run in.
#[derive(Debug, Error)]
pub enum ToolEnvironmentError {
    /// The passfile's format has no place for it.
    #[error("a password with a line break cannot be given to the program")]
    PasswordWithLineBreak,
    /// The certificate must be checked, and nothing says by whose authority.
    #[error(
        "the operating system has no file of trusted certificates; give the server its root certificates"
    )]
    NoRootCertificates,
    /// The private directory cannot be made.
    #[error("the program's private directory cannot be made")]
    Io(#[from] io::Error),
}

/// Where a program connects and as whom.
#[derive(Debug)]
pub struct ToolLogin<'a> {
    /// Where to, checked.
    pub resolved: &'a Resolved,
    /// The role.
    pub username: &'a Identifier,
    /// Its password.
    pub password: &'a SecretString,
    /// The database, whatever its name looks like.
    pub database: &'a Identifier,
    /// Shown in `pg_stat_activity`; the program's backends are found by it.
    pub application_name: &'a str,
    /// For a connection to one address; whole seconds, at least 2.
    pub connect_timeout: Duration,
    /// True to take only a server that accepts writes.
    pub read_write: bool,
}

/// The environment of one program.
#[derive(Debug)]
pub struct ToolEnvironment {
    directory: TempDir,
    database: String,
    variables: Vec<(&'static str, OsString)>,
}

impl ToolEnvironment {
    /// Makes the environment, with its directory in `parent` and for the OS user the program will run as.
    ///
    /// # Errors
    /// Where the directory cannot be made, or the password has no place in a passfile.
    pub fn new(
        parent: &Path,
        user: Option<OsUser>,
        login: &ToolLogin<'_>,
    ) -> Result<Self, ToolEnvironmentError> {
        if login.password.expose_secret().contains(['\n', '\r']) {
            return Err(ToolEnvironmentError::PasswordWithLineBreak);
        }
        let directory = private_directory(parent, user)?;
        let passfile = directory.path().join("passfile");
        write_private(&passfile, passfile_text(login).expose_secret().as_bytes(), user)?;
        let root_certificates = root_certificates(login.resolved, directory.path(), user)?;
        let variables = variables(login, directory.path(), passfile, root_certificates);
        Ok(Self {
            directory,
            database: conninfo(login.database),
            variables,
        })
    }

    /// The program's working directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The argument that names the database.
    #[must_use]
    pub fn database_argument(&self) -> String {
        format!("--dbname={}", self.database)
    }

    /// The variables, all of them.
    #[must_use]
    pub fn variables(&self) -> &[(&'static str, OsString)] {
        &self.variables
    }
}

/// A connection string that names a database and nothing else. libpq takes a bare name with an equals sign, or one that looks
/// like a URL, for a connection string of its own; a quoted value it takes literally (PostgreSQL manual, 34.1.1.1).
fn conninfo(database: &Identifier) -> String {
    let escaped = database.as_str().replace('\\', "\\\\").replace('\'', "\\'");
    format!("dbname='{escaped}'")
}

fn variables(
    login: &ToolLogin<'_>,
    directory: &Path,
    passfile: PathBuf,
    root_certificates: Option<PathBuf>,
) -> Vec<(&'static str, OsString)> {
    let endpoints = login.resolved.endpoints();
    let list = |part: fn(&ResolvedEndpoint) -> String| -> OsString {
        endpoints.iter().map(part).collect::<Vec<_>>().join(",").into()
    };
    let seconds = login.connect_timeout.as_secs().max(2).to_string();
    // A file that does not exist: libpq's own places for it are under a home directory.
    let nothing = directory.join("none");
    let mode = login.resolved.tls().mode();
    let mut variables: Vec<(&'static str, OsString)> = vec![
        ("PATH", "/usr/bin:/bin".into()),
        ("LC_ALL", "C".into()),
        ("HOME", directory.into()),
        ("TMPDIR", directory.into()),
        ("PGHOST", list(|endpoint| endpoint.endpoint.host.to_string())),
        // The address decides where the connection goes, the name only what the certificate must say.
        ("PGHOSTADDR", list(|endpoint| endpoint.address.ip().to_string())),
        ("PGPORT", list(|endpoint| endpoint.address.port().to_string())),
        ("PGUSER", login.username.as_str().into()),
        ("PGPASSFILE", passfile.into()),
        ("PGAPPNAME", login.application_name.into()),
        ("PGCONNECT_TIMEOUT", seconds.into()),
        (
            "PGTARGETSESSIONATTRS",
            if login.read_write { "read-write" } else { "any" }.into(),
        ),
        ("PGSSLMODE", mode.as_str().into()),
        ("PGSSLCERT", nothing.clone().into()),
        ("PGSSLKEY", nothing.into()),
        ("PGGSSENCMODE", "disable".into()),
        // libpq before version 16 does not know this one and ignores it.
        ("PGREQUIREAUTH", "scram-sha-256".into()),
        ("PGTZ", "UTC".into()),
        ("PGCLIENTENCODING", "UTF8".into()),
    ];
    if let Some(root_certificates) = root_certificates {
        variables.push(("PGSSLROOTCERT", root_certificates.into()));
    }
    variables
}

/// One line per endpoint (PostgreSQL manual, 34.16).
fn passfile_text(login: &ToolLogin<'_>) -> SecretString {
    let mut text = String::new();
    for endpoint in login.resolved.endpoints() {
        let fields = [
            &*endpoint.endpoint.host.to_string(),
            &*endpoint.address.port().to_string(),
            login.database.as_str(),
            login.username.as_str(),
        ];
        for field in fields {
            // A name with a line break has no spelling here; nothing else is reachable from this environment anyway.
            let field = if field.contains(['\n', '\r']) {
                "*".to_owned()
            } else {
                escaped(field)
            };
            text.push_str(&field);
            text.push(':');
        }
        text.push_str(&escaped(login.password.expose_secret()));
        text.push('\n');
    }
    SecretString::from(text)
}

fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

fn root_certificates(
    resolved: &Resolved,
    directory: &Path,
    user: Option<OsUser>,
) -> Result<Option<PathBuf>, ToolEnvironmentError> {
    if resolved.tls().mode() != SslMode::VerifyFull {
        return Ok(None);
    }
    let Some(pem) = resolved.tls().root_certificates() else {
        let found = TRUSTED.iter().map(PathBuf::from).find(|path| path.is_file());
        return found.map(Some).ok_or(ToolEnvironmentError::NoRootCertificates);
    };
    let path = directory.join("root.crt");
    write_private(&path, format!("{pem}\n").as_bytes(), user)?;
    Ok(Some(path))
}

fn private_directory(parent: &Path, user: Option<OsUser>) -> io::Result<TempDir> {
    DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    let directory = tempfile::Builder::new()
        .prefix("tool-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    give(directory.path(), user)?;
    Ok(directory)
}

fn write_private(path: &Path, content: &[u8], user: Option<OsUser>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    give(path, user)
}

fn give(path: &Path, user: Option<OsUser>) -> io::Result<()> {
    match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_name_is_one_quoted_value() {
        for (name, expected) in [
            ("app", "dbname='app'"),
            ("host=evil", "dbname='host=evil'"),
            ("it's", "dbname='it\\'s'"),
            ("back\\slash'", "dbname='back\\\\slash\\''"),
        ] {
            assert_eq!(conninfo(&name.parse().unwrap()), expected);
        }
    }

    #[test]
    fn passfile_fields_are_escaped() {
        assert_eq!(escaped("a:b\\c"), "a\\:b\\\\c");
    }
}
