//! Users on the wire.

use rpc::user::v1 as proto;
use store::accounts::Account;
use store::users::User;

use crate::duration::timestamp;

/// A user.
pub(super) fn user(user: &User, account: Option<&Account>) -> proto::User {
    let (kind, email) = match account {
        Some(Account::ServiceAccount) => (proto::UserKind::ServiceAccount, None),
        Some(Account::Person { email }) => (proto::UserKind::Person, email.clone()),
        None => (proto::UserKind::Person, None),
    };
    proto::User {
        name: format!("users/{}", user.id),
        username: user.username.to_string(),
        display_name: user.display_name.to_string(),
        administrator: user.administrator,
        disabled: user.disabled,
        create_time: Some(timestamp(user.create_time)),
        update_time: Some(timestamp(user.update_time)),
        etag: user.etag.to_string(),
        kind: kind.into(),
        email: email.unwrap_or_default(),
    }
}
