//! The login keys: read at the start, and read again when their file changes, so that one is brought in, and another one goes,
//! without a restart.

use std::path::Path;

use anyhow::Context;
use auth::{LoginKeyRing, LoginKeys};
use config::Config;
use secrecy::SecretString;

use super::key_ring::{self, Ring};
use crate::lifecycle::Lifecycle;

/// The ring, where one is configured. Providers need one; without any, what signs access tokens rests in clear.
///
/// # Errors
/// As [`read`].
pub(crate) fn configured(config: &Config) -> anyhow::Result<Option<LoginKeyRing>> {
    if config.api.login_key_file.is_none() && config.oidc.providers.is_empty() {
        tracing::warn!(
            "the key that signs access tokens rests in clear in the config database: set api.login_key_file"
        );
        return Ok(None);
    }
    Ok(Some(read(config)?.into()))
}

/// Reads the keys: one a line.
///
/// # Errors
/// When no file is set, or it cannot be read or holds something else.
pub(crate) fn read(config: &Config) -> anyhow::Result<LoginKeys> {
    LoginKeyRing::read(config.api.require_login_key_file()?)
}

/// Takes up what is written to their file, for as long as the process lives.
pub(crate) fn follow(lifecycle: &Lifecycle, config: &Config, ring: Option<&LoginKeyRing>) {
    if let (Some(path), Some(ring)) = (&config.api.login_key_file, ring) {
        key_ring::follow_file(lifecycle, path.clone(), ring.clone());
    }
}

impl Ring for LoginKeyRing {
    type Keys = LoginKeys;
    const NAME: &'static str = "the ring of login keys";

    fn read(path: &Path) -> anyhow::Result<LoginKeys> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the login key's file {} cannot be read", path.display()))?;
        LoginKeys::from_text(&SecretString::from(text))
            .with_context(|| format!("{} cannot be used", path.display()))
    }

    /// The one that seals first: another order is a change.
    fn ids(keys: &LoginKeys) -> Vec<String> {
        keys.ids().iter().map(ToString::to_string).collect()
    }

    fn held(&self) -> Vec<String> {
        self.ids().iter().map(ToString::to_string).collect()
    }

    fn take(&self, keys: LoginKeys) {
        self.hold(keys);
    }
}
