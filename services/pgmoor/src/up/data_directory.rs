//! The directory in which `pgmoor up` keeps all it has: its PostgreSQL cluster, its secrets, users' files.
//!
//! Invariant: one process at a time uses it, held by a lock that dies with the process; a directory that holds anything else is
//! never touched.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use domain::random::{self, Random};
use rustix::fs::{FlockOperation, flock};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::private_file::{self, Existing, PRIVATE};

/// Marks the directory as ours, with the version of its layout.
const MARKER: &str = "PGMOOR_DATA";
const LAYOUT: &str = "1\n";
const LOCK: &str = "lock";

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub(crate) enum DataDirectoryError {
    /// It has files of somebody else.
    #[error("{path} is not empty and was not made by pgmoor up; name another directory with --data-dir")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "{path} belongs to another user (uid {uid}); run as that user, or name another directory with --data-dir"
    )]
    OtherUser {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A later version laid it out.
    #[error("{path} was laid out by a later version of pgmoor; use that version")]
    Later {
        /// The directory.
        path: PathBuf,
    },
    /// Another process holds it.
    #[error("{path} is in use by process {holder}; stop it, or name another directory with --data-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, as it wrote itself down.
        holder: String,
    },
    /// The file system said no.
    #[error("the data directory {path} cannot be used")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A data directory, held by this process.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    root: PathBuf,
    /// Closing it gives the directory up; the kernel does that too when the process dies.
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory, making it where it does not exist.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirectoryError> {
        let io_error = |source| DataDirectoryError::Io {
            path: root.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(io_error)?;
        let root = root.canonicalize().map_err(io_error)?;
        let owner = std::fs::metadata(&root).map_err(io_error)?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(DataDirectoryError::OtherUser {
                path: root,
                uid: owner,
            });
        }
        match std::fs::read_to_string(root.join(MARKER)) {
            Ok(layout) if layout == LAYOUT => {}
            Ok(_) => return Err(DataDirectoryError::Later { path: root }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut entries = std::fs::read_dir(&root).map_err(io_error)?;
                // A first start that was cut off may have left its lock.
                let foreign = entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK));
                if foreign {
                    return Err(DataDirectoryError::Foreign { path: root });
                }
            }
            Err(error) => return Err(io_error(error)),
        }
        let lock = lock(&root)?;
        // As root, PostgreSQL runs as another user, who must get through to its part. Nothing is readable on the way.
        let mode = if owner == 0 { 0o711 } else { 0o700 };
        std::fs::set_permissions(&root, Permissions::from_mode(mode)).map_err(io_error)?;
        std::fs::write(root.join(MARKER), LAYOUT).map_err(io_error)?;
        let directory = Self { root, _lock: lock };
        directory.make("secrets")?;
        Ok(directory)
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a private directory in it, where there is none.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf, DataDirectoryError> {
        let path = self.path(name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| DataDirectoryError::Io {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }

    /// The secret of that name; drawn and written down when it is first asked for.
    pub(crate) fn secret(&self, name: &str, random: &dyn Random) -> anyhow::Result<SecretString> {
        let path = self.path("secrets").join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(SecretString::from(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = SecretString::from(HEXLOWER.encode(&random::bytes::<24>(random)));
                private_file::write(&path, secret.expose_secret().as_bytes(), PRIVATE, Existing::Keep)?;
                Ok(secret)
            }
            Err(source) => Err(DataDirectoryError::Io { path, source }.into()),
        }
    }
}

fn lock(root: &Path) -> Result<File, DataDirectoryError> {
    let path = root.join(LOCK);
    let io_error = |source| DataDirectoryError::Io {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(io_error)?;
        let holder = holder.trim().to_owned();
        return Err(DataDirectoryError::InUse {
            path: root.to_owned(),
            holder,
        });
    }
    file.set_len(0).map_err(io_error)?;
    file.rewind().map_err(io_error)?;
    writeln!(file, "{}", std::process::id()).map_err(io_error)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use domain::random::SystemRandom;

    use super::*;

    #[test]
    fn directory_is_private_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("data");
        let directory = DataDirectory::open(&root).unwrap();
        let secret = directory.secret("one", &SystemRandom).unwrap();
        drop(directory);
        let again = DataDirectory::open(&root).unwrap();
        assert_eq!(
            again.secret("one", &SystemRandom).unwrap().expose_secret(),
            secret.expose_secret()
        );
        let mode = std::fs::metadata(again.path("secrets/one"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o066, 0);
    }

    #[test]
    fn directory_in_use_names_its_holder() {
        let parent = tempfile::tempdir().unwrap();
        let _held = DataDirectory::open(parent.path()).unwrap();
        let error = DataDirectory::open(parent.path()).unwrap_err();
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }

    #[test]
    fn foreign_directory_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("thesis.txt"), "").unwrap();
        assert!(matches!(
            DataDirectory::open(parent.path()),
            Err(DataDirectoryError::Foreign { .. })
        ));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
