//! The one place where a cause becomes a status with details.
//!
//! Invariant: a fault of pgmoor shows a random id and nothing else; the log has the rest under the same id.
//! No status repeats more than a short piece of what the caller sent.

use data_encoding::HEXLOWER;
use domain::random::{self, Random};
use rpc::error;
use rpc::errors::v1::ErrorReason;
use store::StoreError;
use store::limits::LimitReached;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation};

use crate::error::{Error, STORE_RETRY_DELAY, Violation};

/// Longest piece of a request that an error repeats.
const MAX_ECHO_CHARS: usize = 120;
/// Most wrong fields that one error names: status trailers are small.
const MAX_VIOLATIONS: usize = 32;

/// The status a client sees of a cause.
pub(crate) fn status(error: Error, random: &dyn Random) -> Status {
    let message = error.to_string();
    match error {
        Error::Invalid(violations) => with(
            Code::InvalidArgument,
            ErrorReason::InvalidField,
            summary(&violations),
            bad_request(violations),
        ),
        Error::UnknownSetting { field, name } => with_metadata(
            Code::InvalidArgument,
            ErrorReason::UnknownSetting,
            &message,
            &[("setting", &echo(&name))],
            bad_request(vec![Violation {
                field,
                description: message.clone(),
            }]),
        ),
        Error::InvalidPageToken(_) => with(
            Code::InvalidArgument,
            ErrorReason::InvalidPageToken,
            &message,
            bad_request(vec![Violation {
                field: "page_token".to_owned(),
                description: message.clone(),
            }]),
        ),
        Error::InvalidDocument { .. } => with(
            Code::InvalidArgument,
            ErrorReason::InvalidDocument,
            &message,
            bad_request(vec![Violation {
                field: "document".to_owned(),
                description: message.clone(),
            }]),
        ),
        Error::PermissionMissing { .. } => {
            error::plain(Code::PermissionDenied, ErrorReason::PermissionMissing, message)
        }
        Error::DatabaseNotAllowed { database } => with_metadata(
            Code::PermissionDenied,
            ErrorReason::DatabaseNotAllowed,
            &message,
            &[("database", &echo(&database))],
            ErrorDetails::new(),
        ),
        Error::PolicyForbids { permission } => with_metadata(
            Code::PermissionDenied,
            ErrorReason::PolicyForbids,
            &message,
            &[("permission", permission.as_str())],
            ErrorDetails::new(),
        ),
        Error::EscalationDenied => {
            error::plain(Code::PermissionDenied, ErrorReason::EscalationDenied, message)
        }
        Error::LoginNeeded => error::plain(Code::PermissionDenied, ErrorReason::LoginNeeded, message),
        Error::AccessRevoked => error::plain(Code::PermissionDenied, ErrorReason::AccessRevoked, message),
        Error::SelfApproval => error::plain(Code::PermissionDenied, ErrorReason::SelfApproval, message),
        Error::ElevationState { state } => with_metadata(
            Code::FailedPrecondition,
            ErrorReason::ElevationState,
            &message,
            &[("state", &state.as_str().to_uppercase())],
            ErrorDetails::new(),
        ),
        Error::TooManyCalls { most } => with_metadata(
            Code::ResourceExhausted,
            ErrorReason::TooManyCalls,
            &message,
            &[("most", &most.to_string())],
            ErrorDetails::new(),
        ),
        Error::LimitReached(LimitReached { limit, most }) => with_metadata(
            Code::ResourceExhausted,
            ErrorReason::LimitReached,
            &message,
            &[("limit", limit), ("most", &most.to_string())],
            ErrorDetails::new(),
        ),
        Error::NotFound { kind, name } => {
            let details = ErrorDetails::with_resource_info(kind.to_string(), echo(&name), "", &message);
            with(Code::NotFound, ErrorReason::ResourceNotFound, &message, details)
        }
        Error::Exists { kind, name } => {
            let details = ErrorDetails::with_resource_info(kind.to_string(), echo(&name), "", &message);
            with(
                Code::AlreadyExists,
                ErrorReason::ResourceExists,
                &message,
                details,
            )
        }
        Error::EtagMismatch => error::plain(Code::Aborted, ErrorReason::EtagMismatch, message),
        Error::InUse {
            kind, name, holders, ..
        } => {
            let holders = if holders.is_empty() { vec![name] } else { holders };
            let violations: Vec<_> = holders
                .iter()
                .take(MAX_VIOLATIONS)
                .map(|holder| PreconditionViolation::new(kind.to_string(), echo(holder), &message))
                .collect();
            let details = ErrorDetails::with_precondition_failure(violations);
            with(
                Code::FailedPrecondition,
                ErrorReason::ResourceInUse,
                &message,
                details,
            )
        }
        Error::RequestIdReused => with(
            Code::InvalidArgument,
            ErrorReason::RequestIdReused,
            &message,
            bad_request(vec![Violation {
                field: "request_id".to_owned(),
                description: message.clone(),
            }]),
        ),
        Error::OperationRunning => {
            error::plain(Code::FailedPrecondition, ErrorReason::OperationRunning, message)
        }
        Error::OffsetOutOfRange { offset } => with_metadata(
            Code::OutOfRange,
            ErrorReason::OffsetOutOfRange,
            &message,
            &[("offset", &offset.to_string())],
            ErrorDetails::new(),
        ),
        Error::ArtifactInvalid { .. } => {
            error::plain(Code::FailedPrecondition, ErrorReason::ArtifactInvalid, message)
        }
        Error::QuotaExceeded { quota_bytes } => with_metadata(
            Code::ResourceExhausted,
            ErrorReason::QuotaExceeded,
            &message,
            &[("quota_bytes", &quota_bytes.to_string())],
            ErrorDetails::new(),
        ),
        Error::Stalled { .. } => error::plain(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message),
        Error::EgressDenied(_) => error::plain(Code::PermissionDenied, ErrorReason::EgressDenied, message),
        Error::ShuttingDown => error::plain(Code::Unavailable, ErrorReason::ShuttingDown, message),
        Error::Store(error) => store(error, random),
        Error::Fault { source, .. } => fault(&message, source.as_ref(), random),
        Error::Status(status) => *status,
    }
}

/// What a failure of the config database looks like.
fn store(error: StoreError, random: &dyn Random) -> Status {
    match error {
        StoreError::Unavailable(cause) => {
            tracing::warn!(error = %cause, "the config database is not available");
            let details = ErrorDetails::with_retry_info(Some(STORE_RETRY_DELAY));
            let message = "the config database cannot be reached";
            with(
                Code::Unavailable,
                ErrorReason::ConfigDatabaseUnavailable,
                message,
                details,
            )
        }
        // It certainly did nothing, so sending the call again is safe.
        StoreError::Aborted(cause) | StoreError::TimedOut(cause) => {
            tracing::warn!(error = %cause, "the config database did not carry out a transaction");
            let details = ErrorDetails::with_retry_info(Some(STORE_RETRY_DELAY));
            let message = "the config database is busy, nothing was changed";
            with(
                Code::Unavailable,
                ErrorReason::ConfigDatabaseUnavailable,
                message,
                details,
            )
        }
        StoreError::InvalidCursor => status(Error::InvalidPageToken(domain::page::InvalidPageToken), random),
        error => fault("the config database failed", &error, random),
    }
}

fn fault(context: &str, cause: &(dyn std::error::Error + 'static), random: &dyn Random) -> Status {
    let error_id = HEXLOWER.encode(&random::bytes::<8>(random));
    let chain: Vec<_> = std::iter::successors(Some(cause), |error| error.source())
        .map(ToString::to_string)
        .collect();
    tracing::error!(error.id = error_id, error = chain.join(": "), "{context}");
    let message = format!("internal error {error_id}");
    with_metadata(
        Code::Internal,
        ErrorReason::Internal,
        &message,
        &[("error_id", &error_id)],
        ErrorDetails::new(),
    )
}

fn with(code: Code, reason: ErrorReason, message: impl Into<String>, details: ErrorDetails) -> Status {
    error::status(
        code,
        reason,
        message,
        std::iter::empty::<(String, String)>(),
        details,
    )
}

fn with_metadata(
    code: Code,
    reason: ErrorReason,
    message: &str,
    metadata: &[(&str, &str)],
    details: ErrorDetails,
) -> Status {
    error::status(code, reason, message, metadata.iter().copied(), details)
}

fn summary(violations: &[Violation]) -> String {
    match violations.first() {
        Some(first) if violations.len() == 1 => {
            format!("{} {}", echo(&first.field), echo(&first.description))
        }
        Some(first) => {
            let more = violations.len() - 1;
            format!(
                "{} {} ({more} more)",
                echo(&first.field),
                echo(&first.description)
            )
        }
        None => "the request is not valid".to_owned(),
    }
}

fn bad_request(violations: Vec<Violation>) -> ErrorDetails {
    let violations: Vec<_> = violations
        .into_iter()
        .take(MAX_VIOLATIONS)
        .map(|violation| FieldViolation::new(echo(&violation.field), echo(&violation.description)))
        .collect();
    ErrorDetails::with_bad_request(violations)
}

/// A short piece of what the caller sent, on one line.
fn echo(text: &str) -> String {
    let mut chars = text
        .chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char });
    let mut piece: String = chars.by_ref().take(MAX_ECHO_CHARS).collect();
    if chars.next().is_some() {
        piece.push('…');
    }
    piece
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::error::ResourceKind;

    fn seen(error: Error) -> Status {
        status(error, &SeededRandom::new(1))
    }

    #[test]
    fn fault_shows_an_id_and_nothing_else() {
        let source = Box::new(std::io::Error::other("password=hunter2"));
        let status = seen(Error::Fault {
            context: "reading the moon",
            source,
        });
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(error::reason(&status), Some(ErrorReason::Internal));
        let id = status.get_details_error_info().unwrap().metadata["error_id"].clone();
        assert_eq!(status.message(), format!("internal error {id}"));
        assert!(!format!("{status:?}").contains("hunter2"));
    }

    #[test]
    fn wrong_fields_are_all_named() {
        let mut violations = crate::error::Violations::default();
        violations.add("a", "must not be empty");
        violations.add("b.c", "is odd");
        let status = seen(violations.done().unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(
            fields
                .iter()
                .map(|field| field.field.as_str())
                .collect::<Vec<_>>(),
            ["a", "b.c"]
        );
    }

    #[test]
    fn long_names_are_not_repeated_whole() {
        let status = seen(Error::not_found(ResourceKind::Server, "x\n".repeat(10_000)));
        assert_eq!(error::reason(&status), Some(ErrorReason::ResourceNotFound));
        assert!(status.details().len() < 1000 && !status.message().contains('\n'));
    }

    #[test]
    fn unavailable_store_says_when_to_try_again() {
        let status = seen(Error::Store(StoreError::Unavailable(
            store::Unavailable::AcquireTimeout,
        )));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            error::reason(&status),
            Some(ErrorReason::ConfigDatabaseUnavailable)
        );
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
}
