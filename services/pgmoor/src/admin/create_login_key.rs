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
    /// File for the key. It must not exist: without its key, logins with a provider end
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes the key.
///
/// # Errors
/// When the file exists or cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let key = LoginKey::generate(&SystemRandom);
    private_file::write(
        &arguments.out,
        key.to_text().expose_secret().as_bytes(),
        PRIVATE,
        Existing::Keep,
    )?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "made the login key {}; give it to every API instance, and where they have one, as the second line of its file",
        key.id()
    )?;
    writeln!(out, "api.login_key_file = {:?}", arguments.out)?;
    Ok(())
}
