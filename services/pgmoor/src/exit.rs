//! How the program ends: 0 when it did what was asked, 64 when the command line or the configuration cannot
//! be used, 1 for every other failure.

use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// Says why the program fails, as one line per problem on standard error, and gives the status to end with.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Nobody to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "pgmoor: {error:#}");
    let usage = error.chain().any(|cause| {
        cause.is::<config::InvalidConfig>() || cause.is::<config::Problem>() || cause.is::<BadArgument>()
    });
    if usage {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// An argument that clap cannot judge.
#[derive(Debug, thiserror::Error)]
#[error("{argument} {reason}")]
pub(crate) struct BadArgument {
    /// The argument's name.
    pub(crate) argument: &'static str,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// Prints what clap has to say: help on standard output, a mistake on standard error.
pub(crate) fn of_command_line(error: &clap::Error) -> ExitCode {
    // Nobody to tell when the stream is gone.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Makes ring the one implementation of cryptography in this process: libraries that bring another must not
/// choose.
pub(crate) fn install_crypto_provider() -> anyhow::Result<()> {
    let installed = rustls::crypto::ring::default_provider().install_default();
    installed.map_err(|_| anyhow!("another crypto provider is installed already"))
}
