//! `pgmoor migrate`: brings the config database's schema up to date, as its owner.

use std::io::Write;

use anyhow::Context;
use config::Config;

/// Applies what is pending and says so.
///
/// # Errors
/// When a migration fails; those before it stay applied.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let url = config.config_database.require_url()?;
    let migrated = store::migrate::run(url)
        .await
        .context("the config database was not migrated")?;
    let mut out = std::io::stdout().lock();
    if migrated.from == migrated.to {
        writeln!(out, "the schema is at version {} already", migrated.to)?;
    } else {
        writeln!(
            out,
            "migrated the schema from version {} to {}",
            migrated.from, migrated.to
        )?;
    }
    Ok(())
}
