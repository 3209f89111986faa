//! Passwords: asked for without echo, or read from a file or the standard input; never from the command
//! line, where every other user of the machine could read them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use tokio::sync::oneshot;

use crate::context::Context;
use crate::error::ClientError;

/// Longest password that is read.
const MAX_BYTES: u64 = 4096;

/// Where a password comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct PasswordOptions {
    /// Read the password from the first line of the standard input
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordOptions {
    /// True where the command line says where it comes from.
    pub(crate) fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some()
    }

    /// The password of somebody who has one.
    pub(crate) async fn existing(
        &self,
        context: &mut Context,
        question: &str,
    ) -> Result<SecretString, ClientError> {
        match self.given(context)? {
            Some(password) => Ok(password),
            None => ask(context, question).await,
        }
    }

    /// A password that is being chosen: asked for twice.
    pub(crate) async fn chosen(
        &self,
        context: &mut Context,
        question: &str,
    ) -> Result<SecretString, ClientError> {
        use secrecy::ExposeSecret as _;
        if let Some(password) = self.given(context)? {
            return Ok(password);
        }
        let password = ask(context, question).await?;
        let again = ask(context, "once more: ").await?;
        if password.expose_secret() != again.expose_secret() {
            return Err(ClientError::PasswordsDiffer);
        }
        Ok(password)
    }

    fn given(&self, context: &mut Context) -> Result<Option<SecretString>, ClientError> {
        if let Some(path) = &self.password_file {
            return from_file(path).map(Some);
        }
        if self.password_stdin {
            let mut text = String::new();
            context
                .take_stdin()?
                .take(MAX_BYTES)
                .read_to_string(&mut text)
                .map_err(ClientError::Input)?;
            return Ok(Some(first_line(&text)));
        }
        Ok(None)
    }
}

/// A password in the first line of a file.
pub(crate) fn from_file(path: &Path) -> Result<SecretString, ClientError> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(ClientError::reading(path))?;
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(ClientError::reading(path))?;
    Ok(first_line(&text))
}

fn first_line(text: &str) -> SecretString {
    text.lines().next().unwrap_or_default().into()
}

/// Asks on the terminal, without echo.
pub(crate) async fn ask(context: &Context, question: &str) -> Result<SecretString, ClientError> {
    if !context.stdin_is_terminal {
        return Err(ClientError::NoPassword);
    }
    let (sender, answer) = oneshot::channel();
    let question = question.to_owned();
    // A thread of its own, since nothing can stop it from waiting for the person: it ends with the process.
    std::thread::spawn(move || {
        let _ = sender.send(rpassword::prompt_password(question));
    });
    let answer = answer.await.map_err(|_| ClientError::NoPassword)?;
    answer.map(SecretString::from).map_err(ClientError::Input)
}
