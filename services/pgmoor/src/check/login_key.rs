//! Whether the key of logins with a provider is there and for API instances only.

use config::{Config, Role};

use super::Finding;
use crate::{private_file, roles};

const SUBJECT: &str = "login key";

/// Reads the key, where logins with a provider are configured.
pub(crate) fn look(config: &Config, role: Option<Role>) -> Option<Finding> {
    let asked = role.is_none_or(|role| role == Role::Api) && !config.oidc.providers.is_empty();
    if !asked {
        return None;
    }
    if let Err(error) = roles::providers::login_key(config) {
        return Some(Finding::failed(SUBJECT, format!("{error:#}")));
    }
    let path = config.api.login_key_file.as_ref()?;
    Some(if matches!(private_file::is_exposed(path), Ok(true)) {
        let text = format!("others may read {}: chmod 600 it", path.display());
        Finding::notice(SUBJECT, text)
    } else {
        Finding::fine(SUBJECT, "there; give the same to every API instance")
    })
}
