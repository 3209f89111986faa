//! CreateApiToken, ListApiTokens, RevokeApiToken.

use std::time::Duration;

use domain::access::{Caller, Permission, allows};
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
use crate::context::{Call, Context};
use crate::duration;
use crate::error::{Error, ResourceKind, Violations};
use crate::user::only_administrators;
use crate::{paging, resource};

const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
/// A hundred years: longer than anybody means, short enough for every calendar.
const LONGEST_LIFETIME: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Whose tokens a call is about: the caller's, or those of a service account for whoever may change users.
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
    let accounts = api.store.accounts().of(&[user]).await?;
    // Whoever holds such a token is the account, which may be more than they are; and a workload's token, which lives for
    // minutes by a rule, must not make itself one that lives for ever.
    if accounts.get(&user) == Some(&Account::ServiceAccount) {
        only_administrators(&call.caller)?;
    }
    let grant = api.logins.create_api_token(user, display_name, lifetime).await?;
    Ok(CreateApiTokenResponse {
        api_token: Some(convert::api_token(&grant.api_token)),
        token: grant.token.expose_secret().to_owned(),
    })
}

/// Lists the caller's tokens, newest first.
pub(super) async fn list_api_tokens(
    api: &Context,
    call: Call<ListApiTokensRequest>,
) -> Result<ListApiTokensResponse, Error> {
    let user = account(api, &call.caller, &call.message.user).await?;
    let scope = PageScope::new("ListApiTokens").with(&user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.logins.list_api_tokens(user, &page).await?;
    Ok(ListApiTokensResponse {
        api_tokens: page.items.iter().map(convert::api_token).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Revokes a token of the caller. Another user's answers as a missing one.
pub(super) async fn revoke_api_token(
    api: &Context,
    call: Call<RevokeApiTokenRequest>,
) -> Result<RevokeApiTokenResponse, Error> {
    let name = call.message.name;
    let (owner, token) = resource::api_token("name", &name, &call.caller)?;
    let managed = owner == call.caller.user
        || account(api, &call.caller, &format!("users/{owner}"))
            .await
            .is_ok();
    if !managed || !api.logins.revoke_api_token(owner, token).await? {
        return Err(Error::not_found(ResourceKind::ApiToken, name));
    }
    Ok(RevokeApiTokenResponse {})
}
