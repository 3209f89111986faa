//! `pgmoor admin create-login-key`: the key that API instances share for logins with a provider.

use std::io::Write;
use std::path::PathBuf;

use auth::LoginKey;
use clap::Args;
use domain::random::SystemRandom;
use secrecy::ExposeSecret;

use crate::private_file::{self, Existing, PRIVATE};

/// Arguments of `create-login-key`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File for the key. It must not exist: with another key, logins with a provider end
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes the key.
///
/// # Errors
/// When the file exists or cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let key = LoginKey::generate(&SystemRandom).to_text();
    private_file::write(
        &arguments.out,
        key.expose_secret().as_bytes(),
        PRIVATE,
        Existing::Keep,
    )?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "made a login key; give it to every API instance")?;
    writeln!(out, "api.login_key_file = {:?}", arguments.out)?;
    Ok(())
}
