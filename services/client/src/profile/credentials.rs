//! The tokens of a login on this machine's disk: one file for each profile, for its user's eyes only.
//!
//! Invariant: a refresh token works once, so whoever refreshes holds the lock from reading the file to
//! replacing it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rpc::auth::v1::TokenPair;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{ProfileError, failed};

const LOCK_DEADLINE: Duration = Duration::from_secs(20);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// A login as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// The address the tokens belong to.
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) access_token: SecretString,
    pub(crate) access_expires_at: OffsetDateTime,
    pub(crate) refresh_token: SecretString,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    username: String,
    access_token: String,
    #[serde(with = "time::serde::rfc3339")]
    access_token_expire_time: OffsetDateTime,
    refresh_token: String,
}

impl Credentials {
    /// What a login or a refresh yielded. A pair without an expiry is taken for one that expires now.
    pub(crate) fn of(url: &str, username: &str, pair: TokenPair) -> Self {
        let expires = pair.access_token_expire_time.and_then(|time| {
            let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
            OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
        });
        Self {
            url: url.to_owned(),
            username: username.to_owned(),
            access_token: pair.access_token.into(),
            access_expires_at: expires.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            refresh_token: pair.refresh_token.into(),
        }
    }
}

/// Where a profile's login is kept.
#[derive(Debug, Clone)]
pub(crate) struct CredentialStore {
    path: PathBuf,
}

/// The right to replace a login; ends with the value.
#[derive(Debug)]
pub(crate) struct CredentialLock {
    _file: File,
}

impl CredentialStore {
    pub(crate) fn new(directory: &Path, profile: &str) -> Self {
        Self {
            path: directory.join("credentials").join(profile),
        }
    }

    /// The stored login; none where nobody is logged in.
    pub(crate) fn read(&self) -> Result<Option<Credentials>, ProfileError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &self.path)(error)),
        };
        let mode = std::fs::metadata(&self.path)
            .map_err(failed("read", &self.path))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(ProfileError::Exposed {
                path: self.path.clone(),
            });
        }
        let stored: Stored = serde_json::from_str(&text).map_err(|_| ProfileError::Damaged {
            path: self.path.clone(),
        })?;
        Ok(Some(Credentials {
            url: stored.url,
            username: stored.username,
            access_token: stored.access_token.into(),
            access_expires_at: stored.access_token_expire_time,
            refresh_token: stored.refresh_token.into(),
        }))
    }

    /// Replaces the stored login in one step.
    pub(crate) fn write(
        &self,
        credentials: &Credentials,
        _lock: &CredentialLock,
    ) -> Result<(), ProfileError> {
        let stored = Stored {
            url: credentials.url.clone(),
            username: credentials.username.clone(),
            access_token: credentials.access_token.expose_secret().to_owned(),
            access_token_expire_time: credentials.access_expires_at,
            refresh_token: credentials.refresh_token.expose_secret().to_owned(),
        };
        let text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| failed("write", &self.path)(std::io::Error::other(error)))?;
        let directory = self.directory()?;
        // A temporary file is made with mode 0600 and keeps it under its new name.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed("write to", directory))?;
        file.write_all(&text).map_err(failed("write", &self.path))?;
        file.as_file().sync_all().map_err(failed("write", &self.path))?;
        file.persist(&self.path)
            .map_err(|error| failed("write", &self.path)(error.error))?;
        Ok(())
    }

    /// Forgets the stored login.
    pub(crate) fn remove(&self, _lock: &CredentialLock) -> Result<(), ProfileError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Waits for the right to replace the login. Polls, since a lock that blocks cannot be given up.
    pub(crate) async fn lock(&self) -> Result<CredentialLock, ProfileError> {
        self.lock_within(LOCK_DEADLINE).await
    }

    async fn lock_within(&self, deadline: Duration) -> Result<CredentialLock, ProfileError> {
        let directory = self.directory()?;
        // No profile's name begins with a point, so this is no other profile's login.
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let path = directory.join(format!(".{name}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let end = tokio::time::Instant::now() + deadline;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(CredentialLock { _file: file }),
                Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= end => {
                    return Err(ProfileError::Locked { path });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
            }
        }
    }

    fn directory(&self) -> Result<&Path, ProfileError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make", directory))?;
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(token: &str) -> Credentials {
        Credentials {
            url: "http://127.0.0.1:1".into(),
            username: "alice".into(),
            access_token: token.to_owned().into(),
            access_expires_at: OffsetDateTime::UNIX_EPOCH,
            refresh_token: "refresh".to_owned().into(),
        }
    }

    #[tokio::test]
    async fn login_is_for_its_users_eyes_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = CredentialStore::new(directory.path(), "work");
        assert!(store.read().unwrap().is_none());
        let lock = store.lock().await.unwrap();
        store.write(&credentials("one"), &lock).unwrap();
        store.write(&credentials("two"), &lock).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path), 0o600);
        assert_eq!(mode(store.path.parent().unwrap()), 0o700);
        assert_eq!(store.read().unwrap().unwrap().access_token.expose_secret(), "two");
        let files = std::fs::read_dir(store.path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 2, "the login and its lock, no temporary file");
        store.remove(&lock).unwrap();
        assert!(store.read().unwrap().is_none());
    }

    #[tokio::test]
    async fn login_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = CredentialStore::new(directory.path(), "work");
        let lock = store.lock().await.unwrap();
        store.write(&credentials("one"), &lock).unwrap();
        std::fs::set_permissions(&store.path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.read(), Err(ProfileError::Exposed { .. })));
        std::fs::set_permissions(&store.path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&store.path, "{").unwrap();
        assert!(matches!(store.read(), Err(ProfileError::Damaged { .. })));
    }

    #[tokio::test]
    async fn lock_is_held_by_one_and_waited_for_with_a_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let store = CredentialStore::new(directory.path(), "work");
        let first = store.lock().await.unwrap();
        let tried = store.lock_within(Duration::from_millis(50)).await;
        assert!(matches!(tried, Err(ProfileError::Locked { .. })));
        let waiting = store.lock();
        let letting_go = async { drop(first) };
        let (second, ()) = tokio::join!(waiting, letting_go);
        assert!(second.is_ok());
    }
}
