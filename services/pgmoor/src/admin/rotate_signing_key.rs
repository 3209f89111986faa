//! `pgmoor admin rotate-signing-key`: makes another key the one that signs access tokens, at once. Needed where the login key that
//! the present one is sealed with is lost or changed, and where somebody may have had the present one.

use std::io::Write;

use anyhow::Context;
use clap::Args;
use config::Config;
use domain::random::SystemRandom;

use crate::{database, roles};

/// Arguments of `rotate-signing-key`: none.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// Makes the key, sealed with the configured login key.
///
/// # Errors
/// When the config database or the login key cannot be read.
pub(crate) async fn run(_: &Arguments, config: &Config) -> anyhow::Result<()> {
    let login_key = roles::providers::configured_login_key(config)?;
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    let replaced = auth::replace_signing_key(&store, &SystemRandom, login_key.as_ref()).await;
    store.close().await;
    replaced.context("the key is not replaced")?;
    let rests = if login_key.is_some() {
        "sealed with the login key"
    } else {
        "in clear: set api.login_key_file to have it sealed"
    };
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "another key signs access tokens within 30 s; it rests {rests}\n\
         what the one before signed is good for two hours more"
    )?;
    Ok(())
}
