//! Tokens on the wire.

use auth::TokenPair;
use domain::access::CredentialKind;
use rpc::auth::v1 as proto;
use secrecy::ExposeSecret as _;
use store::api_tokens::ApiToken;

use crate::duration::timestamp;

/// The tokens of a login.
pub(super) fn token_pair(pair: &TokenPair) -> proto::TokenPair {
    proto::TokenPair {
        access_token: pair.access_token.expose_secret().to_owned(),
        access_token_expire_time: Some(timestamp(pair.access_token_expires)),
        refresh_token: pair.refresh_token.expose_secret().to_owned(),
        refresh_token_expire_time: Some(timestamp(pair.refresh_token_expires)),
    }
}

/// A token for automation, without the token.
pub(super) fn api_token(token: &ApiToken) -> proto::ApiToken {
    proto::ApiToken {
        name: format!("users/{}/apiTokens/{}", token.user_id, token.id),
        display_name: token.display_name.to_string(),
        create_time: Some(timestamp(token.create_time)),
        expire_time: token.expire_time.map(timestamp),
        last_use_time: token.last_use_time.map(timestamp),
    }
}

/// How a caller was recognised.
pub(super) fn credential_kind(kind: CredentialKind) -> proto::CredentialKind {
    match kind {
        CredentialKind::AccessToken { .. } => proto::CredentialKind::AccessToken,
        CredentialKind::ApiToken { .. } => proto::CredentialKind::ApiToken,
    }
}
