//! What a caller is told when a pooler says nothing.

use std::time::Duration;

use rpc::errors::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

/// How soon another try is worth it: a pooler that is gone is replaced within its lease.
const RETRY: Duration = Duration::from_secs(2);

/// No pooler is there to serve the call.
pub(super) fn unavailable() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY));
    let none: [(&str, &str); 0] = [];
    let reason = ErrorReason::PoolerUnavailable;
    rpc::error::status(
        Code::Unavailable,
        reason,
        "no pooler is there to serve the call",
        none,
        details,
    )
}

/// A pooler's own status as it is; one that the transport made up, because the connection failed, as what it means.
pub(super) fn broken(status: Status) -> Status {
    if rpc::error::reason(&status).is_some() {
        return status;
    }
    let transport = std::error::Error::source(&status).is_some();
    if status.code() == Code::Unavailable || transport {
        tracing::warn!(code = ?status.code(), message = status.message(), "a pooler cannot be reached");
        return unavailable();
    }
    status
}

/// As [`broken`], for a call that may have been carried out before its answer was lost, and cannot simply be repeated.
pub(super) fn outcome_unknown(status: Status) -> Status {
    let status = broken(status);
    if rpc::error::reason(&status) != Some(ErrorReason::PoolerUnavailable) {
        return status;
    }
    in_doubt_still()
}

/// The answer to a call was lost, and nobody knows of it.
pub(super) fn in_doubt_still() -> Status {
    rpc::error::plain(
        Code::Unknown,
        ErrorReason::OutcomeUnknown,
        "the pooler was lost while it served the call; whether that took effect is not known",
    )
}

/// True where no connection was made, so that the call has reached nobody.
pub(super) fn reached_nobody(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
