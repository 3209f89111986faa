//! The one program of pgmoor: every role, and what an operator does around them.
//!
//! Invariant: whatever way it ends, spans and log lines in memory are sent first, and the exit status says
//! what kind of end it was (see [`exit`]). Everything else is in the crates; here they are put together.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admin;
mod certificates;
mod check;
mod cli;
mod database;
mod exit;
mod lifecycle;
mod migrate;
mod private_file;
mod roles;
mod up;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// How long tasks that were cut off may take to notice.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_command_line(&error),
    };
    if let Err(error) = exit::install_crypto_provider() {
        return exit::report(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("the runtime cannot start")),
    };
    let mut telemetry = None;
    let ended = runtime.block_on(cli.run(&mut telemetry));
    let code = match &ended {
        Ok(code) => *code,
        Err(error) => exit::report(error),
    };
    // Blocks, so not inside the runtime, and before it goes: the last spans travel on its threads.
    if let Some(telemetry) = telemetry {
        telemetry.finish();
    }
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    code
}
