//! Who has just logged in, for the record of the call.

use auth::Seen;
use rpc::auth::v1::TokenPair;

use crate::context::Context;

/// Notes whose tokens these are. A call that was refused has none.
pub(super) async fn note(api: &Context, seen: Option<Seen>, tokens: Option<&TokenPair>) {
    note_token(api, seen, tokens.map(|tokens| tokens.access_token.as_str())).await;
}

/// Notes whose access token this is.
pub(super) async fn note_token(api: &Context, seen: Option<Seen>, access_token: Option<&str>) {
    let (Some(seen), Some(access_token)) = (seen, access_token) else {
        return;
    };
    // Issued a moment ago: it is checked without asking anybody.
    if let Ok(caller) = api.verifier.verify(access_token).await {
        seen.set(&caller);
    }
}
