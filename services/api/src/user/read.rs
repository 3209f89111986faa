//! GetUser, ListUsers.

use domain::access::Permission;
use domain::page::PageScope;
use rpc::user::v1::{GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{paging, resource};

/// Reads a user: oneself, or anybody for those who may see users. To others a user is as good as missing.
pub(super) async fn get_user(api: &Context, call: Call<GetUserRequest>) -> Result<GetUserResponse, Error> {
    let name = call.message.name;
    let id = resource::user("name", &name, &call.caller)?;
    let missing = || Error::not_found(ResourceKind::User, &name);
    if id != call.caller.user && !call.caller.may_everywhere(Permission::UsersRead) {
        return Err(missing());
    }
    let user = api.store.users().get(id).await?.ok_or_else(missing)?;
    let accounts = api.store.accounts().of(&[id]).await?;
    Ok(GetUserResponse {
        user: Some(convert::user(&user, accounts.get(&id))),
    })
}

/// Lists users by login name.
pub(super) async fn list_users(
    api: &Context,
    call: Call<ListUsersRequest>,
) -> Result<ListUsersResponse, Error> {
    let scope = PageScope::new("ListUsers");
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api.store.users().list(&page).await?;
    let ids: Vec<_> = page.items.iter().map(|user| user.id).collect();
    let accounts = api.store.accounts().of(&ids).await?;
    Ok(ListUsersResponse {
        users: page
            .items
            .iter()
            .map(|user| convert::user(user, accounts.get(&user.id)))
            .collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
