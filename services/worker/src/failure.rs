//! Why an operation ended badly, in the words its owner will read.

use domain::backup::InvalidRequest;
use domain::operation::OperationFailure;
use rpc::errors::v1::ErrorReason;
use sealing::OpenError;
use storage::StorageError;
use store::StoreError;
use target::tools::ToolEnvironmentError;
use target::{ConnectError, QuestionError, ResolveError};
use tonic::Status;

use crate::stop::Interrupted;

/// A program exited badly.
pub(crate) const TOOL_FAILED: &str = "TOOL_FAILED";

/// Why an operation ended badly: a reason for programs, and what happened for people. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) exit_status: Option<i32>,
}

/// Why an operation did not come to its end.
#[derive(Debug)]
pub(crate) enum Halt {
    Failed(Failure),
    Interrupted(Interrupted),
}

impl Failure {
    pub(crate) fn new(reason: ErrorReason, message: impl ToString) -> Self {
        Self {
            reason: rpc::error::reason_name(reason),
            message: message.to_string(),
            exit_status: None,
        }
    }

    /// `message` is the end of what the program printed.
    pub(crate) fn tool(message: String, exit_status: Option<i32>) -> Self {
        Self {
            reason: TOOL_FAILED,
            message,
            exit_status,
        }
    }

    /// Something of ours failed that the owner can do nothing about; the log of the worker has the rest.
    pub(crate) fn internal(what: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = error, "{what}");
        Self::new(ErrorReason::Internal, what)
    }
}

impl From<Failure> for OperationFailure {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason.to_owned(),
            message: failure.message,
            exit_status: failure.exit_status,
        }
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Interrupted> for Halt {
    fn from(interrupted: Interrupted) -> Self {
        Self::Interrupted(interrupted)
    }
}

macro_rules! failures {
    ($($error:ty => |$name:ident| $failure:expr;)+) => {$(
        impl From<$error> for Halt {
            fn from($name: $error) -> Self {
                Self::Failed($failure)
            }
        }
    )+};
}

failures! {
    ResolveError => |error| match &error {
        ResolveError::Denied(denied) => Failure::new(ErrorReason::EgressDenied, denied),
        ResolveError::Unknown { .. } => Failure::new(ErrorReason::TargetUnreachable, &error),
    };
    OpenError => |error| Failure::new(ErrorReason::CredentialMissing, error);
    ConnectError => |error| Failure::new(connect_reason(&error), with_source(&error));
    QuestionError => |error| Failure::new(ErrorReason::TargetRefused, with_source(&error));
    StorageError => |error| match &error {
        StorageError::NotFound => Failure::new(ErrorReason::ResourceNotFound, "what was to be restored is gone"),
        StorageError::ArtifactInvalid(invalid) => Failure::new(ErrorReason::ArtifactInvalid, invalid),
        StorageError::QuotaExceeded { .. } => Failure::new(ErrorReason::QuotaExceeded, &error),
        _ => Failure::internal("the object store failed", &error),
    };
    ToolEnvironmentError => |error| match &error {
        ToolEnvironmentError::PasswordWithLineBreak => Failure::new(ErrorReason::CredentialMissing, &error),
        ToolEnvironmentError::NoRootCertificates => Failure::new(ErrorReason::TargetTlsFailed, &error),
        ToolEnvironmentError::Io(_) => Failure::internal("the program's private directory cannot be made", &error),
    };
    InvalidRequest => |error| Failure::internal("the operation's request cannot be read", &error);
    StoreError => |error| Failure::internal("the config database failed", &error);
    Status => |status| Failure::new(
        rpc::error::reason(&status).unwrap_or(ErrorReason::PoolerUnavailable),
        format!("no connections within the budget: {}", status.message()),
    );
}

const fn connect_reason(error: &ConnectError) -> ErrorReason {
    match error {
        ConnectError::RootCertificates { .. } => ErrorReason::TargetTlsFailed,
        ConnectError::Authentication(_) => ErrorReason::TargetAuthenticationFailed,
        ConnectError::TooManyClients(_) => ErrorReason::TargetTooManyClients,
        ConnectError::Refused { .. } => ErrorReason::TargetRefused,
        ConnectError::Unreachable(_) | ConnectError::Timeout | ConnectError::Pool(_) => {
            ErrorReason::TargetUnreachable
        }
    }
}

/// The error and what is behind it: a server's own words are what its user needs.
fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
