//! The one place where an error becomes a status: its code, its reason, and what a client may act on.

use std::time::Duration;

use rpc::error::{plain, status};
use rpc::errors::v1::ErrorReason;
use store::StoreError;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use uuid::Uuid;

use crate::error::{Loss, PoolerError, TargetError, transaction_name};
use crate::slots::SlotRefused;

/// How soon a call is worth another try where nothing better is known.
const RETRY: Duration = Duration::from_secs(1);
/// How soon where somebody has paused the instance: that is not over in a moment.
const PAUSE_RETRY: Duration = Duration::from_secs(10);

fn retry(after: Duration) -> ErrorDetails {
    ErrorDetails::with_retry_info(Some(after))
}

const NONE: [(&str, String); 0] = [];

impl From<PoolerError> for Status {
    fn from(error: PoolerError) -> Self {
        let message = error.to_string();
        match error {
            PoolerError::InvalidField { field, description } => {
                let details = ErrorDetails::with_bad_request_violation(field, description);
                status(
                    Code::InvalidArgument,
                    ErrorReason::InvalidField,
                    message,
                    NONE,
                    details,
                )
            }
            PoolerError::DatabaseNotAllowed { database } => {
                let metadata = [("database", database)];
                let (code, reason) = (Code::PermissionDenied, ErrorReason::DatabaseNotAllowed);
                status(code, reason, message, metadata, ErrorDetails::new())
            }
            PoolerError::NotFound { .. } => plain(Code::NotFound, ErrorReason::ResourceNotFound, message),
            PoolerError::StateLost(Loss { cause, pins }) => {
                let metadata = [("cause", cause.as_str().to_owned()), ("pins", pins.to_string())];
                status(
                    Code::NotFound,
                    ErrorReason::SessionStateLost,
                    message,
                    metadata,
                    ErrorDetails::new(),
                )
            }
            PoolerError::SessionBusy => plain(Code::FailedPrecondition, ErrorReason::SessionBusy, message),
            PoolerError::SessionRecovered { current } => {
                let metadata = [("incarnation", current.to_string())];
                status(
                    Code::Aborted,
                    ErrorReason::SessionRecovered,
                    message,
                    metadata,
                    ErrorDetails::new(),
                )
            }
            PoolerError::ElevationEnded { current } => {
                let metadata = [("incarnation", current.to_string())];
                let (code, reason) = (Code::Aborted, ErrorReason::ElevationEnded);
                status(code, reason, message, metadata, ErrorDetails::new())
            }
            PoolerError::ExecutionFinished => {
                plain(Code::FailedPrecondition, ErrorReason::ExecutionFinished, message)
            }
            PoolerError::SessionReadOnly => {
                plain(Code::FailedPrecondition, ErrorReason::SessionReadOnly, message)
            }
            PoolerError::PortalClosed => plain(Code::FailedPrecondition, ErrorReason::PortalClosed, message),
            PoolerError::ExecutionCancelled => {
                plain(Code::Cancelled, ErrorReason::ExecutionCancelled, message)
            }
            PoolerError::OutcomeUnknown { execution } => {
                let metadata = [("execution", execution.to_string())];
                let reason = ErrorReason::OutcomeUnknown;
                status(Code::Unknown, reason, message, metadata, ErrorDetails::new())
            }
            PoolerError::TransactionState { status: transaction } => {
                let metadata = [("transaction", transaction_name(transaction))];
                let (code, reason) = (Code::FailedPrecondition, ErrorReason::TransactionState);
                status(code, reason, message, metadata, ErrorDetails::new())
            }
            PoolerError::TooManySessions { limit } => {
                let metadata = [("max_user_sessions", limit.to_string())];
                let (code, reason) = (Code::ResourceExhausted, ErrorReason::SessionLimit);
                status(code, reason, message, metadata, ErrorDetails::new())
            }
            PoolerError::Slot(refused) => slot(&refused, message),
            PoolerError::Egress(_) => plain(Code::PermissionDenied, ErrorReason::EgressDenied, message),
            PoolerError::Target(error) => target(&error, message),
            PoolerError::CredentialMissing => {
                plain(Code::FailedPrecondition, ErrorReason::CredentialMissing, message)
            }
            PoolerError::PersonalCredentialMissing => {
                let reason = ErrorReason::PersonalCredentialMissing;
                plain(Code::FailedPrecondition, reason, message)
            }
            PoolerError::Moved { owner } => {
                let metadata = owner.map(|owner| ("pooler", owner.to_string()));
                status(
                    Code::Unavailable,
                    ErrorReason::Moved,
                    message,
                    metadata,
                    retry(RETRY),
                )
            }
            PoolerError::ResultExpired => {
                let reason = ErrorReason::ResultExpired;
                status(
                    Code::FailedPrecondition,
                    reason,
                    message,
                    NONE,
                    ErrorDetails::new(),
                )
            }
            PoolerError::ReaderReplaced => {
                let reason = ErrorReason::ReaderReplaced;
                status(Code::Aborted, reason, message, NONE, ErrorDetails::new())
            }
            PoolerError::HolderSilent => status(
                Code::Unavailable,
                ErrorReason::PoolerUnavailable,
                message,
                NONE,
                retry(RETRY),
            ),
            PoolerError::Audit(_) => {
                let reason = ErrorReason::AuditUnavailable;
                status(Code::Unavailable, reason, message, NONE, retry(RETRY))
            }
            PoolerError::ShuttingDown => status(
                Code::Unavailable,
                ErrorReason::ShuttingDown,
                message,
                NONE,
                retry(RETRY),
            ),
            PoolerError::ConfigDatabase => {
                let reason = ErrorReason::ConfigDatabaseUnavailable;
                status(Code::Unavailable, reason, message, NONE, retry(RETRY))
            }
            PoolerError::Auth(error) => error.into(),
            PoolerError::NotSupported { field } => {
                let metadata = [("field", field)];
                let (code, reason) = (Code::FailedPrecondition, ErrorReason::NotSupported);
                status(code, reason, message, metadata, ErrorDetails::new())
            }
            PoolerError::Internal { error_id } => {
                let metadata = [("error_id", error_id.to_string())];
                status(
                    Code::Internal,
                    ErrorReason::Internal,
                    message,
                    metadata,
                    ErrorDetails::new(),
                )
            }
        }
    }
}

fn slot(refused: &SlotRefused, message: String) -> Status {
    match refused {
        SlotRefused::Exhausted { view, .. } => {
            let usage = view.usage;
            let metadata = [
                ("max_connections", view.budget.connections.to_string()),
                ("reserved_connections", view.budget.reserved.to_string()),
                ("in_use", usage.total().to_string()),
                ("in_use_interactive", usage.interactive.to_string()),
                ("in_use_pinned", usage.pinned.to_string()),
                ("in_use_worker", usage.worker.to_string()),
                ("in_use_monitoring", usage.monitoring.to_string()),
                ("waiting", view.waiting.to_string()),
                ("own_connections", view.own_connections.to_string()),
                ("own_holders", view.own_holders.join(",")),
            ];
            status(
                Code::ResourceExhausted,
                ErrorReason::BudgetExhausted,
                message,
                metadata,
                retry(RETRY),
            )
        }
        SlotRefused::Paused { .. } => {
            let reason = ErrorReason::InstancePaused;
            status(Code::Unavailable, reason, message, NONE, retry(PAUSE_RETRY))
        }
        SlotRefused::TooMany { limit, .. } => {
            let metadata = [("max_connections", limit.to_string())];
            let (code, reason) = (Code::ResourceExhausted, ErrorReason::BudgetExhausted);
            status(code, reason, message, metadata, ErrorDetails::new())
        }
        SlotRefused::QueueFull { waiting } => {
            let metadata = [("waiting", waiting.to_string())];
            status(
                Code::ResourceExhausted,
                ErrorReason::QueueFull,
                message,
                metadata,
                retry(RETRY),
            )
        }
    }
}

fn target(error: &TargetError, message: String) -> Status {
    match error {
        TargetError::Unreachable { .. } => status(
            Code::Unavailable,
            ErrorReason::TargetUnreachable,
            message,
            NONE,
            retry(RETRY),
        ),
        TargetError::Authentication { reason } => {
            let metadata = [("server_message", reason.clone())];
            let (code, reason) = (Code::FailedPrecondition, ErrorReason::TargetAuthenticationFailed);
            status(code, reason, message, metadata, ErrorDetails::new())
        }
        TargetError::TooManyClients { retry_after } => {
            let reason = ErrorReason::TargetTooManyClients;
            status(
                Code::ResourceExhausted,
                reason,
                message,
                NONE,
                retry(*retry_after),
            )
        }
        TargetError::Refused { sqlstate, .. } => {
            let metadata = [("sqlstate", sqlstate.clone())];
            let (code, reason) = (Code::FailedPrecondition, ErrorReason::TargetRefused);
            status(code, reason, message, metadata, ErrorDetails::new())
        }
        TargetError::Tls { .. } => plain(Code::FailedPrecondition, ErrorReason::TargetTlsFailed, message),
        TargetError::IsPooler => plain(Code::FailedPrecondition, ErrorReason::TargetIsPooler, message),
    }
}

/// A failure of the config database. What is not an outage is ours: the log has it, the client gets its number.
pub(crate) fn store_error(error: StoreError) -> PoolerError {
    match error {
        StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Aborted(_) => {
            tracing::warn!(%error, "the config database is not available");
            PoolerError::ConfigDatabase
        }
        error => internal(&error),
    }
}

/// A fault of ours.
pub(crate) fn internal(error: &dyn std::error::Error) -> PoolerError {
    let error_id = Uuid::new_v4();
    tracing::error!(%error_id, %error, "internal error");
    PoolerError::Internal { error_id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LossCause;
    use domain::pin::Pin;
    use tonic_types::StatusExt as _;

    #[test]
    fn client_learns_why_a_session_is_gone() {
        let status = Status::from(PoolerError::StateLost(Loss {
            cause: LossCause::IdleTimeout,
            pins: [Pin::Setting, Pin::Listen].into_iter().collect(),
        }));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(rpc::error::reason(&status), Some(ErrorReason::SessionStateLost));
        let metadata = status.get_details_error_info().unwrap().metadata.clone();
        assert_eq!(
            (metadata["cause"].as_str(), metadata["pins"].as_str()),
            ("idle_timeout", "SETTING,LISTEN")
        );
    }

    #[test]
    fn wrong_field_is_named() {
        let error = PoolerError::InvalidField {
            field: "script.sql",
            description: "contains a NUL byte".into(),
        };
        let status = Status::from(error);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "script.sql");
    }
}
