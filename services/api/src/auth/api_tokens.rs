//! CreateApiToken, ListApiTokens, RevokeApiToken.

use std::time::Duration;

use domain::access::{Caller, CredentialKind, Permission, allows};
use domain::id::UserId;
use domain::name::DisplayName;
use domain::page::PageScope;
use rpc::auth::v1::{
    CreateApiTokenRequest, CreateApiTokenResponse, ListApiTokensRequest, ListApiTokensResponse,
    RevokeApiTokenRequest, RevokeApiTokenResponse,
};
use secrecy::ExposeSecret as _;
use store::accounts::Account;

use super::convert;
use super::logins::may_manage;
use crate::context::{Call, Context};
use crate::duration;
use crate::error::{Error, ResourceKind, Violations};
use crate::user::only_administrators;
use crate::{paging, resource};

const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
/// A hundred years: longer than anybody means, short enough for every calendar.
const LONGEST_LIFETIME: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Whom a token is for: the caller, or a service account for whoever may change users.
async fn account(api: &Context, caller: &Caller, name: &str) -> Result<UserId, Error> {
    if name.is_empty() {
        return Ok(caller.user);
    }
    let user = resource::user("user", name, caller)?;
    if user == caller.user {
        return Ok(user);
    }
    let accounts = api.store.accounts().of(&[user]).await?;
    match accounts.get(&user) {
        Some(Account::ServiceAccount) if allows(caller, Permission::UsersUpdate) => Ok(user),
        _ => Err(Error::not_found(ResourceKind::User, name)),
    }
}

/// Whose tokens are looked at or ended: the caller's, or another user's for whoever may change users.
async fn managed(api: &Context, caller: &Caller, name: &str) -> Result<UserId, Error> {
    if name.is_empty() {
        return Ok(caller.user);
    }
    let user = resource::user("user", name, caller)?;
    let is_there = user == caller.user
        || (may_manage(caller, user) && api.store.accounts().of(&[user]).await?.contains_key(&user));
    if is_there {
        Ok(user)
    } else {
        Err(Error::not_found(ResourceKind::User, name))
    }
}

/// Makes a token for automation.
pub(super) async fn create_api_token(
    api: &Context,
    call: Call<CreateApiTokenRequest>,
) -> Result<CreateApiTokenResponse, Error> {
    let request = call.message;
    let mut violations = Violations::default();
    let display_name = violations.check("display_name", request.display_name.parse::<DisplayName>());
    let lifetime = request.lifetime.and_then(|wish| {
        violations.check(
            "lifetime",
            duration::decode_within(wish, SHORTEST_LIFETIME, LONGEST_LIFETIME),
        )
    });
    let Some(display_name) = display_name else {
        return Err(violations.into_error());
    };
    violations.done()?;
    let user = account(api, &call.caller, &request.user).await?;
    let accounts = api.store.accounts().of(&[user, call.caller.user]).await?;
    // Whoever holds such a token is the account, which may be more than they are.
    if accounts.get(&user) == Some(&Account::ServiceAccount) {
        only_administrators(&call.caller)?;
    }
    // A credential that ends makes none that does not end with it.
    let not_after = match accounts.get(&call.caller.user) {
        Some(Account::ServiceAccount) => call.caller.expires,
        _ if matches!(call.caller.credential, CredentialKind::ApiToken { .. }) => {
            return Err(Error::LoginNeeded);
        }
        _ => None,
    };
    let grant = api
        .logins
        .create_api_token(user, display_name, lifetime, not_after)
        .await?;
    Ok(CreateApiTokenResponse {
        api_token: Some(convert::api_token(&grant.api_token)),
        token: grant.token.expose_secret().to_owned(),
    })
}

/// Lists a user's tokens, newest first.
pub(super) async fn list_api_tokens(
    api: &Context,
    call: Call<ListApiTokensRequest>,
) -> Result<ListApiTokensResponse, Error> {
    let user = managed(api, &call.caller, &call.message.user).await?;
    let scope = PageScope::new("ListApiTokens").with(&user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.logins.list_api_tokens(user, &page).await?;
    Ok(ListApiTokensResponse {
        api_tokens: page.items.iter().map(convert::api_token).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Revokes a token. Another user's answers as a missing one, unless the caller may change users.
pub(super) async fn revoke_api_token(
    api: &Context,
    call: Call<RevokeApiTokenRequest>,
) -> Result<RevokeApiTokenResponse, Error> {
    let name = call.message.name;
    let (owner, token) = resource::api_token("name", &name, &call.caller)?;
    if !may_manage(&call.caller, owner) || !api.logins.revoke_api_token(owner, token).await? {
        return Err(Error::not_found(ResourceKind::ApiToken, name));
    }
    Ok(RevokeApiTokenResponse {})
}
