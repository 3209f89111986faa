//! The command-line client of the API, and the connection it stands on.
//!
//! Invariant: data goes to the standard output and nothing else does; a secret is never read from the
//! command line and never written but where its owner asked for it; an SQL statement is never sent a second
//! time.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod chunks;
mod command;
mod commands;
mod connection;
mod context;
mod environment;
mod error;
mod error_text;
mod exit;
mod globals;
mod interrupts;
mod io;
mod loopback;
mod output;
mod password;
mod profile;
mod server_name;
mod sql;

pub use command::Command;
pub use connection::{Authorized, Call, ConnectError, Connection, Identity, Target};
pub use environment::Environment;
pub use error::ClientError;
pub use exit::{EXIT_STATUS_HELP, Exit};
pub use globals::{Format, Globals};
pub use interrupts::{Interrupter, Interrupts};
pub use io::{Io, Typed, Typist};
pub use profile::ProfileError;

use context::Context;

/// Runs a command to its end and says with which status the process should exit. Errors are told on the
/// standard error.
pub async fn run(command: Command, globals: Globals, mut io: Io) -> Exit {
    let given = io.interrupts.take();
    let (interrupter, own) = Interrupter::new();
    let by_signal = given.is_none();
    let mut context = Context::new(globals, io, given.unwrap_or(own));
    let work = Box::pin(work(command, &mut context));
    if !by_signal {
        return work.await;
    }
    tokio::select! {
        exit = work => exit,
        () = interrupts::follow_signals(interrupter) => Exit::Failed,
    }
}

async fn work(command: Command, context: &mut Context) -> Exit {
    let mut outcome = command.run(context).await;
    // What was fetched is shown even if more was to come; but a reader that does not read must not hold
    // Ctrl-C up.
    let gives_up = |error: &ClientError| matches!(error.exit(), Exit::Interrupted | Exit::OutputClosed);
    if !outcome.as_ref().err().is_some_and(gives_up) {
        let flushed = context.out.flush().await;
        outcome = outcome.and(flushed);
    }
    context.close().await;
    let Err(error) = outcome else { return Exit::Success };
    let exit = error.exit();
    if !matches!(error, ClientError::Reported(_)) && exit != Exit::OutputClosed {
        context.notes.text(&error_text::text(&error));
    }
    exit
}
