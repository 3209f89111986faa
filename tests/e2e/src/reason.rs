//! Reading errors as a client does: by code and reason, never by their text.

use rpc::errors::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Code and reason of an error; a status without `ErrorInfo` has the reason UNSPECIFIED, which is never sent.
#[must_use]
pub fn of(status: &Status) -> (Code, ErrorReason) {
    let reason = rpc::error::reason(status).unwrap_or(ErrorReason::Unspecified);
    (status.code(), reason)
}

/// A value of the error's metadata.
#[must_use]
pub fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.get(key).cloned()
}

/// Everything an error tells a client, for looking for what must not be in it.
#[must_use]
pub fn text(status: &Status) -> String {
    format!("{status:?} {:?}", status.get_error_details())
}

/// Asserts that a call failed with this code and reason.
///
/// # Panics
/// When it did not, with what it did.
#[track_caller]
pub fn expect<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: ErrorReason) -> Status {
    let status = result.expect_err("the call must fail");
    assert_eq!(of(&status), (code, reason), "{}", text(&status));
    status
}
