//! WhoAmI.

use rpc::auth::v1::{WhoAmIRequest, WhoAmIResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::Error;

/// Says who the caller is.
pub(super) async fn who_am_i(_api: &Context, call: Call<WhoAmIRequest>) -> Result<WhoAmIResponse, Error> {
    let caller = call.caller;
    Ok(WhoAmIResponse {
        user: format!("users/{}", caller.user),
        username: caller.username.clone(),
        display_name: caller.display_name.clone(),
        administrator: caller.administrator,
        credential_kind: convert::credential_kind(caller.credential).into(),
        expire_time: caller.expires.map(timestamp),
    })
}
