//! WaitOperation.

use std::sync::Arc;
use std::time::Duration;

use domain::access::Permission;
use rpc::operation::v1::{WaitOperationRequest, WaitOperationResponse};
use tokio::time::{Instant, sleep_until};
use tonic::metadata::MetadataMap;

use super::convert;
use crate::context::{Call, Context};
use crate::duration;
use crate::error::Error;
use crate::upheld::{self, Entry};
use crate::{access, resource};

/// How long a call waits where the request does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Of the time the caller has, so much is kept for the answer, or a quarter of it where that is less.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Answers when the operation has ended, or the time is over, or the caller's own deadline is near, or this
/// server goes away.
pub(super) async fn wait_operation(
    api: &Arc<Context>,
    call: Call<WaitOperationRequest>,
    deadline: Option<Instant>,
) -> Result<WaitOperationResponse, Error> {
    let id = resource::operation("name", &call.message.name)?;
    let timeout = match call.message.timeout {
        None => DEFAULT_TIMEOUT,
        Some(timeout) => duration::decode_within(timeout, Duration::ZERO, MAX_TIMEOUT)
            .map_err(|error| Error::invalid("timeout", error))?,
    };
    let enough = Instant::now() + timeout;
    let enough = deadline.map_or(enough, |deadline| deadline.min(enough));
    let mut operation = access::operation(api, &call.caller, id, Permission::OperationsRead).await?;
    if !operation.state.is_done() {
        tokio::select! {
            biased;
            () = api.waits.ended(id) => {}
            () = sleep_until(enough) => {}
            () = api.drain.cancelled() => {}
            refusal = upheld::refusal(api, &call, Entry::Operation(id)) => return Err(refusal),
        }
        operation = access::operation(api, &call.caller, id, Permission::OperationsRead).await?;
    }
    Ok(WaitOperationResponse {
        operation: Some(convert::operation(&operation)),
    })
}

/// When to answer a caller that gives up by itself, by the `grpc-timeout` of its call.
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = grpc_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    Some(Instant::now() + timeout.saturating_sub(ANSWER_TIME.min(timeout / 4)))
}

/// Reads a timeout as the gRPC protocol writes it: up to eight digits and a unit. One longer than any wait is
/// none.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().last()?;
    let digits = &text[..unit_at];
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    let timeout = match unit {
        'H' => Duration::from_secs(value * 60 * 60),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    };
    (timeout <= MAX_TIMEOUT).then_some(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        for (text, timeout) in [
            ("1S", Some(Duration::from_secs(1))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("100n", Some(Duration::from_nanos(100))),
            ("99999999H", None),
            ("999999999n", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1ü", None),
        ] {
            assert_eq!(grpc_timeout(text), timeout, "{text}");
        }
    }
}
