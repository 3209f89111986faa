//! Users on the wire.

use rpc::user::v1 as proto;
use store::users::User;

use crate::duration::timestamp;

/// A user.
pub(super) fn user(user: &User) -> proto::User {
    proto::User {
        name: format!("users/{}", user.id),
        username: user.username.to_string(),
        display_name: user.display_name.to_string(),
        administrator: user.administrator,
        disabled: user.disabled,
        create_time: Some(timestamp(user.create_time)),
        update_time: Some(timestamp(user.update_time)),
        etag: user.etag.to_string(),
    }
}
