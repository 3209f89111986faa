//! The one constructor of error statuses: every error of the API carries a `google.rpc.ErrorInfo`.
//!
//! Which error becomes which reason is decided where the error is known; here is only how it is written.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::errors::v1::ErrorReason;

/// The `domain` of every [`ErrorInfo`](tonic_types::ErrorInfo) we send.
pub const DOMAIN: &str = "pgmoor";

const PREFIX: &str = "ERROR_REASON_";

/// The name of a reason as clients see it: without its prefix.
#[must_use]
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// A code as gRPC spells it.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A status with `ErrorInfo` in its details, beside what `details` holds already (`BadRequest`, `RetryInfo`,
/// …).
///
/// Neither `message` nor `metadata` may hold a secret.
#[must_use]
pub fn status<K: Into<String>, V: Into<String>>(
    code: Code,
    reason: ErrorReason,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (K, V)>,
    mut details: ErrorDetails,
) -> Status {
    let metadata: std::collections::HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    details.set_error_info(reason_name(reason), DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// A status with `ErrorInfo` and nothing else in its details.
#[must_use]
pub fn plain(code: Code, reason: ErrorReason, message: impl Into<String>) -> Status {
    status(
        code,
        reason,
        message,
        std::iter::empty::<(String, String)>(),
        ErrorDetails::new(),
    )
}

/// The reason a status carries, or nothing where it is none of ours.
#[must_use]
pub fn reason(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    ErrorReason::from_str_name(&format!("{PREFIX}{}", info.reason))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reason_survives_the_wire_form_beside_other_details() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        let status = status(
            Code::ResourceExhausted,
            ErrorReason::LoginThrottled,
            "too many failed logins",
            [("limit", "10")],
            details,
        );
        assert_eq!(reason(&status), Some(ErrorReason::LoginThrottled));
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("LOGIN_THROTTLED", "pgmoor")
        );
        assert_eq!(info.metadata["limit"], "10");
        assert_eq!(
            status.get_details_retry_info().unwrap().retry_delay,
            Some(Duration::from_secs(3))
        );
    }

    #[test]
    fn reason_of_another_domain_is_none_of_ours() {
        let details =
            ErrorDetails::with_error_info("TOKEN_INVALID", "example.com", [] as [(String, String); 0]);
        let status = Status::with_error_details(Code::Unauthenticated, "no", details);
        assert_eq!(reason(&status), None);
    }
}
