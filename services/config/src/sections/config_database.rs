//! `[config_database]`: the PostgreSQL database that holds pgmoor's own state.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

const URL: &str = "config_database.url";

/// Keys of `[config_database]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigDatabase {
    /// `postgres://user:password@host:port/database`, with one host or several: `@h1:5432,h2:5432,h3:5432/`.
    /// Each role connects as a role of its own. No default. Once loaded, also holds what `url_file` holds.
    #[serde(deserialize_with = "values::secret")]
    pub url: Option<SecretString>,
    /// A file that holds the URL, instead of `url`. Read once, at the start. No default.
    pub url_file: Option<PathBuf>,
    /// The most connections one process holds. 1 to 1000. Default 10.
    #[serde(deserialize_with = "values::number")]
    pub max_connections: u32,
}

impl Default for ConfigDatabase {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            max_connections: 10,
        }
    }
}

impl ConfigDatabase {
    /// The URL.
    ///
    /// # Errors
    /// When there is none.
    pub fn require_url(&self) -> Result<&SecretString, Problem> {
        self.url.as_ref().ok_or_else(|| {
            Problem::missing(
                URL,
                "give the URL of the config database, or its file as config_database.url_file",
            )
        })
    }

    /// Reads `url_file` into `url`.
    pub(crate) fn resolve(&mut self) -> Result<(), Problem> {
        let Some(path) = &self.url_file else { return Ok(()) };
        if self.url.is_some() {
            return Err(Problem::invalid(
                URL,
                "and config_database.url_file are both set: remove one of them",
            ));
        }
        let text = std::fs::read_to_string(path).map_err(|error| {
            let reason = format!("names {}, which cannot be read: {error}", path.display());
            Problem::invalid("config_database.url_file", reason)
        })?;
        self.url = Some(SecretString::from(text.trim()));
        Ok(())
    }

    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(url) = &self.url {
            let url = url.expose_secret();
            // Hosts and the rest are read by the crate that connects: several hosts are not a URL in the
            // sense of RFC 3986.
            if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
                problems.push(Problem::invalid(URL, "must start with postgres://"));
            }
        }
        if !(1..=1000).contains(&self.max_connections) {
            problems.push(Problem::invalid(
                "config_database.max_connections",
                "must be from 1 to 1000",
            ));
        }
        problems
    }
}
