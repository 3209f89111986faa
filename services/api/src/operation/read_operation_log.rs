//! ReadOperationLog.
//!
//! Offsets count the bytes of the log as it was printed. A piece ends between two characters; bytes that are
//! no UTF-8 become U+FFFD in the text and still count as what they were.

use domain::access::Permission;
use rpc::operation::v1::{ReadOperationLogRequest, ReadOperationLogResponse};
use store::operations::{LogPiece, ReadLogError};

use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::{access, resource};

/// Bytes of a piece where the request does not say.
const DEFAULT_LIMIT: u32 = 64 * 1024;
/// Most bytes of a piece. Three times as many in text, where none of them is UTF-8, still fit a message.
const MAX_LIMIT: u32 = 1024 * 1024;
/// A piece has room for the longest character, or the reader would not get past it.
const MIN_LIMIT: u32 = 4;

/// Reads a piece of an operation's log.
pub(super) async fn read_operation_log(
    api: &Context,
    call: Call<ReadOperationLogRequest>,
) -> Result<ReadOperationLogResponse, Error> {
    let request = call.message;
    let id = resource::operation("name", &request.name)?;
    let mut violations = Violations::default();
    let offset = violations.check(
        "offset",
        u64::try_from(request.offset).map_err(|_| "must not be negative"),
    );
    let limit = violations.check(
        "limit",
        u32::try_from(request.limit).map_err(|_| "must not be negative"),
    );
    let (Some(offset), Some(limit)) = (offset, limit) else {
        return Err(violations.into_error());
    };
    let limit = match limit {
        0 => DEFAULT_LIMIT,
        limit => limit.clamp(MIN_LIMIT, MAX_LIMIT),
    };
    access::operation(api, &call.caller, id, Permission::OperationsRead).await?;
    let piece = api.store.operations().read_log(id, offset, limit).await;
    let piece = piece.map_err(|error| match error {
        ReadLogError::NotFound => access::no_operation(id),
        ReadLogError::OffsetOutOfRange { size } => Error::OffsetOutOfRange { offset: size },
        ReadLogError::Store(error) => Error::Store(error),
    })?;
    Ok(response(offset, piece))
}

fn response(offset: u64, piece: LogPiece) -> ReadOperationLogResponse {
    let LogPiece { mut data, end, .. } = piece;
    if !end {
        data.truncate(data.len() - unfinished_bytes(&data));
    }
    let next_offset = offset.saturating_add(data.len() as u64);
    ReadOperationLogResponse {
        text: String::from_utf8_lossy(&data).into_owned(),
        next_offset: i64::try_from(next_offset).unwrap_or(i64::MAX),
        end,
    }
}

/// How many bytes at the end are the beginning of a character that may go on.
fn unfinished_bytes(data: &[u8]) -> usize {
    // A character has at most four bytes, so only its first three can be without their last.
    let tail = &data[data.len().saturating_sub(3)..];
    (1..=tail.len())
        .rev()
        .find(|length| {
            let beginning = &tail[tail.len() - length..];
            let first = beginning.first().is_some_and(|byte| *byte >= 0xc0);
            first
                && std::str::from_utf8(beginning)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(data: &[u8], end: bool) -> ReadOperationLogResponse {
        let next_offset = 100 + data.len() as u64;
        response(
            100,
            LogPiece {
                data: data.to_vec(),
                next_offset,
                end,
            },
        )
    }

    #[test]
    fn piece_ends_between_characters() {
        for text in ["a", "ü", "€", "🐘"] {
            for cut in 1..text.len() {
                let read = piece(&[b"ab", &text.as_bytes()[..cut]].concat(), false);
                assert_eq!(
                    (read.text.as_str(), read.next_offset),
                    ("ab", 102),
                    "{text} cut at {cut}"
                );
            }
            let whole = piece(text.as_bytes(), false);
            assert_eq!(
                (whole.text.as_str(), whole.next_offset),
                (text, 100 + text.len() as i64)
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such_and_counted() {
        let read = piece(b"a\xff\xfeb", false);
        assert_eq!(
            (read.text.as_str(), read.next_offset),
            ("a\u{fffd}\u{fffd}b", 104)
        );
        // Continuations without a beginning hold nobody up.
        let read = piece(b"\xa9\xa9", false);
        assert_eq!((read.text.as_str(), read.next_offset), ("\u{fffd}\u{fffd}", 102));
    }

    #[test]
    fn character_that_never_ends_does_not_hold_up_the_end() {
        let read = piece(b"a\xc3", true);
        assert_eq!(
            (read.text.as_str(), read.next_offset, read.end),
            ("a\u{fffd}", 102, true)
        );
    }
}
