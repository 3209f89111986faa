//! Who has just logged in, for the record of the call.

use auth::Seen;
use rpc::auth::v1::TokenPair;

use crate::context::Context;

/// Notes whose tokens these are. A call that was refused has none.
pub(super) async fn note(api: &Context, seen: Option<Seen>, tokens: Option<&TokenPair>) {
    let (Some(seen), Some(tokens)) = (seen, tokens) else {
        return;
    };
    // Issued a moment ago: it is checked without asking anybody.
    if let Ok(caller) = api.verifier.verify(&tokens.access_token).await {
        seen.set(&caller);
    }
}
