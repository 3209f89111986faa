//! Whether the opening key opens what API instances seal.

use config::{Config, Role};
use sealing::KeyId;
use store::Store;

use super::Finding;
use crate::{private_file, roles};

const SUBJECT: &str = "opening key";

/// Reads the key and looks for its public half in the config database, where there is one to ask.
pub(crate) async fn look(config: &Config, role: Option<Role>, store: Option<&Store>) -> Vec<Finding> {
    if role.is_none() && config.sealing.is_empty() {
        return Vec::new();
    }
    let held: Vec<KeyId> = match roles::key_ring::read(&config.sealing) {
        Ok(keys) => keys.iter().map(|key| key.sealing_key().id()).collect(),
        Err(error) => return vec![Finding::failed(SUBJECT, format!("{error:#}"))],
    };
    let mut findings = Vec::new();
    if let Some(path) = &config.sealing.opening_key_file
        && matches!(private_file::is_exposed(path), Ok(true))
    {
        findings.push(Finding::notice(
            SUBJECT,
            format!("others may read {}: chmod 600 it", path.display()),
        ));
    }
    // That there is none is said elsewhere.
    if let Some(store) = store
        && let Ok(Some(current)) = store.sealing_keys().current().await
    {
        findings.push(judge(&held, &current.key_id));
    }
    findings
}

fn judge(held: &[KeyId], current: &str) -> Finding {
    if held.iter().any(|id| id.as_str() == current) {
        return Finding::fine(SUBJECT, format!("opens what is sealed to {current}"));
    }
    let held = held.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", ");
    let text = format!("credentials are sealed to {current}, and {held} is held: add the key {current}");
    Finding::failed(SUBJECT, text)
}
