//! `pgmoor admin rotate-signing-key`: makes another key the one that signs access tokens, at once. Needed where the login key that
//! the present one is sealed with is lost or changed, and where somebody may have had the present one.

use std::io::Write;

use anyhow::{Context, bail};
use clap::Args;
use config::Config;
use domain::random::SystemRandom;

use crate::exit::BadArgument;
use crate::{database, roles};

/// Arguments of `rotate-signing-key`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Without a login key: have the new key rest in clear though the present one is sealed
    #[arg(long)]
    in_clear: bool,
}

/// Makes the key, sealed with the first login key.
///
/// # Errors
/// When the config database or the login key cannot be read, or a sealed key would be followed by one in clear.
pub(crate) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<()> {
    let login_key = roles::login_keys::configured(config)?;
    if arguments.in_clear && login_key.is_some() {
        return Err(BadArgument {
            argument: "--in-clear",
            reason: "api.login_key_file is set: the key will rest sealed".to_owned(),
        }
        .into());
    }
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    let present = store.signing_keys().current().await?;
    if present.is_some_and(|key| key.private_key.is_sealed()) && login_key.is_none() && !arguments.in_clear {
        bail!(
            "the present key rests sealed, and there is no login key to seal another one with: set api.login_key_file, or say \
             --in-clear"
        );
    }
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
