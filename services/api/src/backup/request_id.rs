//! Request ids: a wish that is sent again with the same id is the same wish.

use prost::Message;
use sha2::{Digest, Sha256};
use store::operations::RequestId;

use crate::error::Violations;

/// Longest request id.
const MAX_CHARS: usize = 128;

/// The id of a request, bound to what is asked: `request` without its id. None where the client gave none.
pub(super) fn request_id(
    id: &str,
    method: &str,
    request: &impl Message,
    violations: &mut Violations,
) -> Option<RequestId> {
    if id.is_empty() {
        return None;
    }
    if id.chars().count() > MAX_CHARS || id.chars().any(char::is_control) {
        violations.add(
            "request_id",
            format_args!("must be at most {MAX_CHARS} characters without control characters"),
        );
        return None;
    }
    // None of the messages has a map, so that equal ones are encoded alike.
    let mut hash = Sha256::new();
    hash.update(method);
    hash.update([0]);
    hash.update(request.encode_to_vec());
    Some(RequestId {
        id: id.to_owned(),
        hash: hash.finalize().into(),
    })
}
