//! `pgmoor admin create-sealing-key`: the key pair of credentials. The opening key goes into a file for
//! poolers and workers. Of the first pair the public key goes into the config database, where API instances
//! find it; that of a later one once poolers and workers hold the opening key, by `rotate-keys`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use config::Config;
use domain::random::SystemRandom;
use sealing::{OpeningKey, SealingKey};
use secrecy::ExposeSecret;
use store::Store;
use store::StoreError;

use crate::database;
use crate::private_file::{self, Existing, PRIVATE};

/// Arguments of `create-sealing-key`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File for the opening key. It must not exist: credentials sealed to a lost key stay sealed
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes the pair.
///
/// # Errors
/// When the file exists or cannot be written, or the config database does not take the public key; then no
/// file stays.
pub(crate) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<()> {
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    let opening = OpeningKey::generate(&SystemRandom);
    let sealing = opening.sealing_key();
    // First the file: a public key whose opening key is nowhere would swallow every credential.
    private_file::write(
        &arguments.out,
        opening.to_text().expose_secret().as_bytes(),
        PRIVATE,
        Existing::Keep,
    )?;
    let registered = register(&store, &sealing).await;
    if let Err(error) = &registered {
        std::fs::remove_file(&arguments.out)
            .with_context(|| format!("{} is of no use and cannot be removed", arguments.out.display()))?;
        return Err(anyhow::anyhow!("{error}").context("the public key was not registered"));
    }
    store.close().await;
    let mut out = std::io::stdout().lock();
    if registered? {
        writeln!(
            out,
            "made the sealing key {}; credentials are sealed to it from now on",
            sealing.id()
        )?;
        writeln!(out, "sealing.opening_key_file = {:?}", arguments.out)?;
    } else {
        writeln!(
            out,
            "made the sealing key {}; append its line to the file of every pooler and worker, and then seal to it \
             with `pgmoor admin rotate-keys`",
            sealing.id()
        )?;
    }
    Ok(())
}

/// Publishes the key where there is none to seal to. True where it did.
async fn register(store: &Store, key: &SealingKey) -> Result<bool, StoreError> {
    let keys = store.sealing_keys();
    let first = keys.current().await?.is_none();
    if first {
        keys.publish(key.id().as_str(), &key.to_bytes()).await?;
    }
    Ok(first)
}
