//! Whether the login keys are there, and for API instances only.

use config::{Config, Role};

use super::Finding;
use crate::{private_file, roles};

const SUBJECT: &str = "login key";

/// Reads the key. Logins with a provider need one; without any, what signs access tokens rests in clear.
pub(crate) fn look(config: &Config, role: Option<Role>) -> Option<Finding> {
    if role.is_some_and(|role| role != Role::Api) {
        return None;
    }
    if config.api.login_key_file.is_none() && config.oidc.providers.is_empty() {
        let text = "none: the key that signs access tokens rests in clear in the config database";
        return Some(Finding::notice(SUBJECT, text));
    }
    let keys = match roles::login_keys::read(config) {
        Ok(keys) => keys.ids(),
        Err(error) => return Some(Finding::failed(SUBJECT, format!("{error:#}"))),
    };
    let path = config.api.login_key_file.as_ref()?;
    Some(if matches!(private_file::is_exposed(path), Ok(true)) {
        let text = format!("others may read {}: chmod 600 it", path.display());
        Finding::notice(SUBJECT, text)
    } else {
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let (first, others) = names.split_first()?;
        let also = match others {
            [] => String::new(),
            others => format!(" and opens also what is sealed with {}", others.join(", ")),
        };
        let text = format!("seals with {first}{also}; give the same to every API instance");
        Finding::fine(SUBJECT, text)
    })
}
