//! ListLogins, RevokeLogin.

use domain::access::{Caller, CredentialKind, Permission, allows};
use domain::id::UserId;
use domain::page::PageScope;
use rpc::auth::v1::{ListLoginsRequest, ListLoginsResponse, Login, RevokeLoginRequest, RevokeLoginResponse};
use store::devices::Device;

use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::{Error, ResourceKind};
use crate::{paging, resource};

/// Lists logins that have not ended, newest first.
pub(super) async fn list_logins(
    api: &Context,
    call: Call<ListLoginsRequest>,
) -> Result<ListLoginsResponse, Error> {
    let request = call.message;
    let user = match request.user.as_str() {
        "" => call.caller.user,
        name => resource::user("user", name, &call.caller)?,
    };
    if !may_manage(&call.caller, user) {
        return Err(Error::not_found(ResourceKind::User, request.user));
    }
    let scope = PageScope::new("ListLogins").with(&user.to_string());
    let page = paging::request(&scope, request.page_size, &request.page_token)?;
    let page = api.store.devices().list(user, &page).await?;
    Ok(ListLoginsResponse {
        logins: page
            .items
            .iter()
            .map(|device| login(device, &call.caller))
            .collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Ends a login. Another user's answers as a missing one, unless the caller may change users.
pub(super) async fn revoke_login(
    api: &Context,
    call: Call<RevokeLoginRequest>,
) -> Result<RevokeLoginResponse, Error> {
    let name = call.message.name;
    let (owner, login) = resource::login("name", &name, &call.caller)?;
    if !may_manage(&call.caller, owner) || !api.store.devices().revoke(owner, login).await? {
        return Err(Error::not_found(ResourceKind::Login, name));
    }
    api.provider_logins.revoke(login).await;
    Ok(RevokeLoginResponse {})
}

/// Whether the caller may see and end what belongs to the account of a user.
pub(super) fn may_manage(caller: &Caller, user: UserId) -> bool {
    caller.user == user || allows(caller, Permission::UsersUpdate)
}

fn login(device: &Device, caller: &Caller) -> Login {
    Login {
        name: format!("users/{}/logins/{}", device.user_id, device.login_id),
        client_name: device.client_name.clone().unwrap_or_default(),
        address: device.address.clone().unwrap_or_default(),
        provider: device.provider.clone().unwrap_or_default(),
        create_time: Some(timestamp(device.create_time)),
        refresh_time: device.refresh_time.map(timestamp),
        current: matches!(caller.credential, CredentialKind::AccessToken { login } if login == device.login_id),
    }
}
