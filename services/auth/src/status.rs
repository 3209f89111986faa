//! How a refusal is written on the wire: one status per [`AuthError`], with its published reason.

use std::time::Duration;

use rpc::error::{plain, status as with_details};
use rpc::errors::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use crate::error::AuthError;
use crate::login_failure::LoginFailure;

/// When a caller who was told that the config database is away tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When a caller whose provider is away tries again.
const PROVIDER_RETRY_AFTER: Duration = Duration::from_secs(5);

const NO_METADATA: [(&str, &str); 0] = [];

/// The status of a refusal, with `ErrorInfo` and, where waiting helps, `RetryInfo`.
#[must_use]
pub fn status(error: &AuthError) -> Status {
    let message = error.to_string();
    match error {
        AuthError::CredentialsMissing => {
            plain(Code::Unauthenticated, ErrorReason::CredentialsMissing, message)
        }
        AuthError::TokenInvalid => plain(Code::Unauthenticated, ErrorReason::TokenInvalid, message),
        AuthError::TokenExpired => plain(Code::Unauthenticated, ErrorReason::TokenExpired, message),
        AuthError::TokenRevoked => plain(Code::Unauthenticated, ErrorReason::TokenRevoked, message),
        AuthError::NotVouched => plain(Code::Unauthenticated, ErrorReason::ApiTokenNotVouched, message),
        AuthError::LoginFailed => plain(Code::Unauthenticated, ErrorReason::LoginFailed, message),
        AuthError::LoginThrottled { retry_after } => with_details(
            Code::ResourceExhausted,
            ErrorReason::LoginThrottled,
            message,
            NO_METADATA,
            ErrorDetails::with_retry_info(Some(*retry_after)),
        ),
        AuthError::Login(failure) => of_login(failure, message),
        AuthError::PermissionMissing { permission } => with_details(
            Code::PermissionDenied,
            ErrorReason::PermissionMissing,
            message,
            [("permission", permission.as_str())],
            ErrorDetails::new(),
        ),
        AuthError::Unavailable => with_details(
            Code::Unavailable,
            ErrorReason::ConfigDatabaseUnavailable,
            message,
            NO_METADATA,
            ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
        ),
        AuthError::Internal { error_id } => with_details(
            Code::Internal,
            ErrorReason::Internal,
            message,
            [("error_id", error_id.to_string())],
            ErrorDetails::new(),
        ),
    }
}

fn of_login(failure: &LoginFailure, message: String) -> Status {
    let (code, reason) = failure.reason();
    match failure {
        LoginFailure::ProviderUnavailable => {
            let details = ErrorDetails::with_retry_info(Some(PROVIDER_RETRY_AFTER));
            with_details(code, reason, message, NO_METADATA, details)
        }
        LoginFailure::Refused { error } => with_details(
            code,
            reason,
            message,
            [("error", error.as_str())],
            ErrorDetails::new(),
        ),
        _ => plain(code, reason, message),
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        status(&error)
    }
}

#[cfg(test)]
mod tests {
    use domain::access::Permission;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn every_refusal_has_its_published_reason() {
        let retry_after = Duration::from_secs(42);
        let error_id = uuid::Uuid::nil();
        for (error, code, reason) in [
            (
                AuthError::NotVouched,
                Code::Unauthenticated,
                ErrorReason::ApiTokenNotVouched,
            ),
            (
                AuthError::CredentialsMissing,
                Code::Unauthenticated,
                ErrorReason::CredentialsMissing,
            ),
            (
                AuthError::TokenInvalid,
                Code::Unauthenticated,
                ErrorReason::TokenInvalid,
            ),
            (
                AuthError::TokenExpired,
                Code::Unauthenticated,
                ErrorReason::TokenExpired,
            ),
            (
                AuthError::TokenRevoked,
                Code::Unauthenticated,
                ErrorReason::TokenRevoked,
            ),
            (
                AuthError::LoginFailed,
                Code::Unauthenticated,
                ErrorReason::LoginFailed,
            ),
            (
                AuthError::LoginThrottled { retry_after },
                Code::ResourceExhausted,
                ErrorReason::LoginThrottled,
            ),
            (
                AuthError::PermissionMissing {
                    permission: Permission::UsersRead,
                },
                Code::PermissionDenied,
                ErrorReason::PermissionMissing,
            ),
            (
                AuthError::Unavailable,
                Code::Unavailable,
                ErrorReason::ConfigDatabaseUnavailable,
            ),
            (
                AuthError::Internal { error_id },
                Code::Internal,
                ErrorReason::Internal,
            ),
        ] {
            let status = status(&error);
            assert_eq!(
                (status.code(), rpc::error::reason(&status)),
                (code, Some(reason)),
                "{error}"
            );
        }
    }

    #[test]
    fn throttled_login_says_when_to_try_again() {
        let status = status(&AuthError::LoginThrottled {
            retry_after: Duration::from_secs(42),
        });
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(42)));
    }
}
