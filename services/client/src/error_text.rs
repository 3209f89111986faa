//! Errors as a person reads them on the terminal: what, why, which field, what to do.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

use rpc::errors::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::ClientError;

/// The text for the terminal; lines, the last one ended too.
pub(crate) fn text(error: &ClientError) -> String {
    let ClientError::Status(status) = error else {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        let mut text = causes.fold(format!("error: {error}"), |text, cause| {
            format!("{text}: {cause}")
        });
        text.push('\n');
        if let Some(hint) = local_hint(error) {
            let _ = writeln!(text, "  hint: {hint}");
        }
        return clean(&text);
    };
    status_text(status)
}

fn status_text(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let label = reason.unwrap_or_else(|| code_name(status.code()).to_owned());
    let message = if status.message().is_empty() {
        "the call failed"
    } else {
        status.message()
    };
    // A lost connection says more in its cause than in its message.
    let cause = std::iter::successors(status.source(), |&cause| cause.source()).last();
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let mut text = format!("error: {message}{cause} [{label}]\n");
    for violation in details
        .bad_request()
        .map(|bad| bad.field_violations.as_slice())
        .unwrap_or_default()
    {
        let _ = writeln!(text, "  {}: {}", violation.field, violation.description);
    }
    for violation in details
        .precondition_failure()
        .map(|failure| failure.violations.as_slice())
        .unwrap_or_default()
    {
        let _ = writeln!(
            text,
            "  {} {}: {}",
            violation.r#type, violation.subject, violation.description
        );
    }
    if let Some(info) = details.error_info() {
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        for (key, value) in metadata {
            let _ = writeln!(text, "  {key}: {value}");
        }
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        // Milliseconds are enough for a person.
        let delay = Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let _ = writeln!(text, "  try again in {}", humantime::format_duration(delay));
    }
    if let Some(hint) = hint(status) {
        let _ = writeln!(text, "  hint: {hint}");
    }
    clean(&text)
}

/// What comes from a server must not steer the terminal.
fn clean(text: &str) -> String {
    crate::output::table::printable(text)
}

fn local_hint(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::NotFound { kind: "server", .. } => Some("pgmoor servers list shows what there is"),
        ClientError::Ambiguous { .. } => Some("name it by its id, or as group/name"),
        ClientError::NoPassword => Some("use --password-stdin or --password-file"),
        _ => None,
    }
}

fn hint(status: &Status) -> Option<&'static str> {
    let Some(reason) = rpc::error::reason(status) else {
        return match status.code() {
            Code::Unavailable => {
                Some("is the server running? its address is --server-url, PGMOOR_URL or the profile's url")
            }
            Code::Unimplemented => Some("the server does not offer this; it may be older than this client"),
            _ => None,
        };
    };
    Some(match reason {
        ErrorReason::CredentialsMissing
        | ErrorReason::TokenExpired
        | ErrorReason::TokenRevoked
        | ErrorReason::LoginEndedByProvider => "run: pgmoor login",
        ErrorReason::LoginNotInvited => {
            "an administrator invites you: pgmoor users create NAME --email ADDRESS"
        }
        ErrorReason::LoginPolicyDenied
        | ErrorReason::LoginUsernameTaken
        | ErrorReason::LoginUsernameInvalid => "ask an administrator of pgmoor",
        ErrorReason::LoginUnknown => "the login took too long, or was collected before; run: pgmoor login",
        ErrorReason::TokenInvalid => "run: pgmoor login, or check PGMOOR_TOKEN",
        ErrorReason::PolicyForbids if forbids_elevation(status) => {
            "the server's owner says for how long: pgmoor servers policy SERVER --max-elevation 1h"
        }
        ErrorReason::EtagMismatch => "somebody else changed it; look at it again and repeat",
        ErrorReason::UnknownSetting => "pgmoor settings definitions lists all of them",
        ErrorReason::EgressDenied => "an administrator allows addresses with egress.allow",
        ErrorReason::CredentialMissing => "run: pgmoor servers set-password SERVER",
        ErrorReason::TargetAuthenticationFailed => {
            "PostgreSQL refused the registered user or password; run: pgmoor servers set-password SERVER"
        }
        ErrorReason::BudgetExhausted | ErrorReason::QueueFull => {
            "close sessions that are not needed any more, wait longer with --queue-timeout, or raise the budget"
        }
        ErrorReason::SessionBusy => "the session runs something else; wait for it or cancel it",
        ErrorReason::SessionStateLost => "open a new session; what the old one held is gone",
        ErrorReason::ResourceExists => "choose another name",
        ErrorReason::OffsetOutOfRange => "the file changed in between; begin anew",
        ErrorReason::OperationRunning => "run: pgmoor ops cancel OPERATION, or wait for its end",
        ErrorReason::TargetIsPooler => "register PostgreSQL's own address",
        ErrorReason::Internal => "give the error_id to whoever runs pgmoor; the log has the rest",
        _ => return None,
    })
}

/// Whether what the server's policy does not allow is an elevation.
fn forbids_elevation(status: &Status) -> bool {
    let details = status.get_error_details();
    let permission = details
        .error_info()
        .and_then(|info| info.metadata.get("permission"));
    permission.is_some_and(|permission| permission == "elevations.request")
}

fn code_name(code: Code) -> &'static str {
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

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;
    use crate::exit::Exit;

    #[test]
    fn status_shows_reason_fields_and_hint() {
        let details =
            ErrorDetails::with_bad_request(vec![FieldViolation::new("settings[0].name", "is not known")]);
        let status = rpc::error::status(
            Code::InvalidArgument,
            ErrorReason::UnknownSetting,
            "no setting has this name",
            [("setting", "query.rowlimit")],
            details,
        );
        insta::assert_snapshot!(text(&status.into()), @r"
        error: no setting has this name [UNKNOWN_SETTING]
          settings[0].name: is not known
          setting: query.rowlimit
          hint: pgmoor settings definitions lists all of them
        ");
    }

    #[test]
    fn throttled_login_says_when_to_try_again() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(2500)));
        let status = rpc::error::status(
            Code::ResourceExhausted,
            ErrorReason::LoginThrottled,
            "too many failed logins",
            [] as [(&str, &str); 0],
            details,
        );
        insta::assert_snapshot!(text(&status.into()), @r"
        error: too many failed logins [LOGIN_THROTTLED]
          try again in 2s 500ms
        ");
    }

    #[test]
    fn message_cannot_steer_the_terminal() {
        let shown = text(&Status::internal("\u{1b}[2Jgone\nsecond").into());
        insta::assert_snapshot!(shown, @r"
        error: \x1B[2Jgone
        second [INTERNAL]
        ");
    }

    #[test]
    fn causes_of_local_errors_are_shown() {
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = ClientError::File {
            action: "read",
            path: "servers.json".into(),
            source: cause,
        };
        insta::assert_snapshot!(text(&error), @"error: cannot read servers.json: permission denied");
    }

    #[test]
    fn codes_have_their_exit_status() {
        for (code, exit) in [
            (Code::Unauthenticated, Exit::Denied),
            (Code::PermissionDenied, Exit::Denied),
            (Code::NotFound, Exit::NotFound),
            (Code::Unavailable, Exit::Unavailable),
            (Code::DeadlineExceeded, Exit::Unavailable),
            (Code::InvalidArgument, Exit::Failed),
            (Code::Aborted, Exit::Failed),
        ] {
            assert_eq!(ClientError::from(Status::new(code, "")).exit(), exit, "{code:?}");
        }
    }
}
