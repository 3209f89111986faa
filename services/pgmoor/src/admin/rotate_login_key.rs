//! `pgmoor admin rotate-login-key`: seals with the first login key what rests sealed with another one of the file, while
//! everything serves. Each text is opened and sealed again in this process and replaced only if nobody replaced it meanwhile.

use std::io::Write;

use anyhow::Context;
use auth::LoginKeyRing;
use clap::Args;
use config::Config;
use domain::random::SystemRandom;

use crate::{database, roles};

/// Arguments of `rotate-login-key`: none.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// Seals everything with the first key.
///
/// # Errors
/// When the file lacks the key that the signing key is sealed with; then nothing has changed.
pub(crate) async fn run(_: &Arguments, config: &Config) -> anyhow::Result<()> {
    let keys = roles::login_keys::read(config)?;
    let ids: Vec<String> = keys.ids().iter().map(ToString::to_string).collect();
    let (first, others) = ids.split_first().context("there is no login key")?;
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    let resealed = auth::reseal_logins(&store, &LoginKeyRing::from(keys), &SystemRandom).await;
    let resealed = resealed.context("run it again: what was done stays done")?;
    let signing = store.signing_keys().current().await?;
    store.close().await;

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "what API instances keep of logins is sealed with {first}; {} texts were sealed with it anew",
        resealed.anew
    )?;
    if signing.is_some_and(|key| !key.private_key.is_sealed()) {
        writeln!(
            out,
            "the key that signs access tokens rests in clear: `pgmoor admin rotate-signing-key` has it replaced"
        )?;
    }
    if resealed.void > 0 {
        writeln!(
            out,
            "{} texts open with no key of the file: their people have to log in again",
            resealed.void
        )?;
    }
    if !resealed.is_complete && !others.is_empty() {
        writeln!(
            out,
            "something may be sealed with another key still: run it again before a line is taken out of the file"
        )?;
        return Ok(());
    }
    for key in others {
        writeln!(
            out,
            "nothing is sealed with {key} any more; its line is of use only with an older copy of the config database"
        )?;
    }
    Ok(())
}
