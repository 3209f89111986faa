//! Why a command did not work, and which exit status that is.

use std::io;
use std::path::PathBuf;

use prost::DecodeError;
use thiserror::Error;
use tonic::{Code, Status};

use crate::connection::ConnectError;
use crate::exit::Exit;
use crate::profile::ProfileError;

/// Why a command did not work.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The server answered with an error, or did not answer.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// The connection cannot even be tried.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The profile or its credentials cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The command line asks for something that makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
    },
    /// A name that the server knows nothing about.
    #[error("there is no {kind} {name:?}")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// By which name.
        name: String,
    },
    /// A name that several things have.
    #[error("{name:?} may be any of {}", candidates.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// What it may be.
        candidates: Vec<String>,
    },
    /// A local file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The standard input cannot be read.
    #[error("cannot read the standard input")]
    Input(#[source] io::Error),
    /// The standard output cannot be written.
    #[error("cannot write the standard output")]
    Output(#[source] io::Error),
    /// A large value cannot be put aside.
    #[error("cannot keep a large value in a temporary file")]
    Spool(#[source] io::Error),
    /// The server sent something that is not the API.
    #[error("the server's answer cannot be read")]
    Decode(#[from] DecodeError),
    /// The server left out what the API promises.
    #[error("the server's answer has no {field}")]
    Incomplete {
        /// The field.
        field: &'static str,
    },
    /// Data does not have the checksum or size it should have.
    #[error("{what} arrived damaged: {detail}")]
    Damaged {
        /// What was transferred.
        what: String,
        /// How it differs.
        detail: String,
    },
    /// A password is needed and nobody is there to ask.
    #[error("a password is needed, and there is no terminal to ask for it")]
    NoPassword,
    /// The password was not typed the same way twice.
    #[error("the two passwords differ")]
    PasswordsDiffer,
    /// It has been told already; only the exit status is left to say.
    #[error("already reported")]
    Reported(Exit),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl ClientError {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
        }
    }

    pub(crate) fn reading(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action: "read",
            path,
            source,
        }
    }

    pub(crate) fn writing(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action: "write",
            path,
            source,
        }
    }

    /// The exit status that says this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Status(status) => match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
                Code::NotFound => Exit::NotFound,
                Code::Unavailable | Code::DeadlineExceeded => Exit::Unavailable,
                _ => Exit::Failed,
            },
            Self::Usage { .. } | Self::Ambiguous { .. } => Exit::Usage,
            Self::Connect(_) => Exit::Usage,
            Self::Profile(
                ProfileError::Unknown { .. } | ProfileError::InvalidName | ProfileError::Malformed { .. },
            ) => Exit::Usage,
            Self::NotFound { .. } => Exit::NotFound,
            Self::NoPassword | Self::PasswordsDiffer => Exit::Denied,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::OutputClosed,
            Self::Reported(exit) => *exit,
            _ => Exit::Failed,
        }
    }
}
