//! A profile: which server, as whom, and where the tokens are kept.
//!
//! Invariant: tokens are stored with the address they belong to and are used for no other.

mod config_file;
mod credentials;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub(crate) use config_file::{ConfigFile, Entry};
pub(crate) use credentials::{CredentialLock, CredentialStore, Credentials};

use crate::environment::Environment;
use crate::globals::Globals;

/// Where a server listens when nobody says otherwise: what `pgmoor up` uses.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:7700";
const DEFAULT_PROFILE: &str = "default";

/// Why a profile cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// Not a name for a profile.
    #[error(
        "a profile's name is 1 to 64 letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
    )]
    InvalidName,
    /// There is no such profile in the configuration.
    #[error("there is no profile {name:?} in {}", path.display())]
    Unknown {
        /// Its name.
        name: String,
        /// The configuration.
        path: PathBuf,
    },
    /// Neither HOME nor XDG_CONFIG_HOME is set.
    #[error("neither HOME nor XDG_CONFIG_HOME is set: there is no place for the login")]
    NoHome,
    /// The configuration or the credentials cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The configuration is not what it should be.
    #[error("{} is not a valid configuration: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The stored credentials are not what they should be.
    #[error("{} is damaged; run: pgmoor login", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Others than the user may read the stored credentials.
    #[error("{} may be read by others; run: chmod 600 on it, or log in anew", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the credentials and does not let go.
    #[error("another process has kept {} locked for too long", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
}

/// The profile in use.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) user: Option<String>,
    /// The provider to log in with; none for a password.
    pub(crate) provider: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    /// None where there is no home to keep a login in.
    pub(crate) credentials: Option<CredentialStore>,
    config_path: Option<PathBuf>,
}

impl Profile {
    /// The profile that options, environment and configuration name.
    pub(crate) fn resolve(globals: &Globals, environment: &Environment) -> Result<Self, ProfileError> {
        let directory = environment.config_directory();
        let config_path = directory.as_ref().map(|directory| directory.join("config.toml"));
        let config = match &config_path {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let named = globals.profile.clone().or_else(|| config.default_profile());
        let name = named.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
        check_name(&name)?;
        let entry = config.entry(&name);
        let Some(url) = globals
            .server_url
            .clone()
            .or_else(|| entry.url.clone())
            .or_else(|| {
                // A name that was given and means nothing must not end up at some default address.
                named
                    .is_none_or(|name| name == DEFAULT_PROFILE)
                    .then(|| DEFAULT_URL.to_owned())
            })
        else {
            return Err(ProfileError::Unknown {
                name,
                path: config_path.unwrap_or_default(),
            });
        };
        Ok(Self {
            credentials: directory.map(|directory| CredentialStore::new(&directory, &name)),
            ca_file: globals.ca_file.clone().or(entry.ca_file),
            user: entry.user,
            provider: entry.provider,
            url: url.trim_end_matches('/').to_owned(),
            name,
            config_path,
        })
    }

    /// Keeps address, user and provider, so that later commands need not name them.
    pub(crate) fn remember(&self, user: &str, provider: Option<&str>) -> Result<(), ProfileError> {
        let path = self.config_path.as_ref().ok_or(ProfileError::NoHome)?;
        let mut config = ConfigFile::read(path)?;
        let entry = Entry {
            url: Some(self.url.clone()),
            user: Some(user.to_owned()),
            provider: provider.map(str::to_owned),
            ca_file: self.ca_file.clone(),
        };
        config.set(&self.name, &entry);
        config.write(path)
    }
}

/// The name becomes a file's name.
fn check_name(name: &str) -> Result<(), ProfileError> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    let fits = name.len() <= 64
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    fits.then_some(()).ok_or(ProfileError::InvalidName)
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ProfileError {
    let path = path.into();
    move |source| ProfileError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &tempfile::TempDir) -> Environment {
        Environment {
            config_home: Some(directory.path().to_owned()),
            ..Environment::default()
        }
    }

    #[test]
    fn profile_remembers_address_and_user_and_keeps_comments() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(&directory);
        let path = directory.path().join("pgmoor/config.toml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "# mine\n[profiles.work]\nurl = \"http://old:1\" # here\n").unwrap();
        let globals = Globals {
            profile: Some("work".into()),
            server_url: Some("https://db.example.com/".into()),
            ..Globals::default()
        };
        Profile::resolve(&globals, &environment)
            .unwrap()
            .remember("alice", None)
            .unwrap();
        let globals = Globals {
            server_url: None,
            ..globals
        };
        let profile = Profile::resolve(&globals, &environment).unwrap();
        assert_eq!(
            (profile.url.as_str(), profile.user.as_deref()),
            ("https://db.example.com", Some("alice"))
        );
        assert!(std::fs::read_to_string(path).unwrap().starts_with("# mine\n"));
    }

    #[test]
    fn unknown_profile_does_not_mean_the_default_server() {
        let directory = tempfile::tempdir().unwrap();
        let globals = Globals {
            profile: Some("wrok".into()),
            ..Globals::default()
        };
        let result = Profile::resolve(&globals, &environment(&directory));
        assert!(matches!(result, Err(ProfileError::Unknown { name, .. }) if name == "wrok"));
        let profile = Profile::resolve(&Globals::default(), &environment(&directory)).unwrap();
        assert_eq!(profile.url, DEFAULT_URL);
    }

    #[test]
    fn profile_name_cannot_leave_its_directory() {
        for name in ["../x", "a/b", "", ".hidden", "ä", &"x".repeat(65)] {
            assert!(
                matches!(check_name(name), Err(ProfileError::InvalidName)),
                "{name}"
            );
        }
    }
}
