//! AddGroupMember, RemoveGroupMember, ListGroupMembers.

use domain::page::PageScope;
use rpc::access::v1 as proto;
use store::groups::{MANUAL, Membership};

use super::groups::{cause, giving, missing, seen};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{paging, resource};

/// Takes a user into a group, of which the caller has all it has.
pub(super) async fn add_group_member(
    api: &Context,
    call: Call<proto::AddGroupMemberRequest>,
) -> Result<proto::AddGroupMemberResponse, Error> {
    let id = resource::group("group", &call.message.group)?;
    let user = resource::user("user", &call.message.user, &call.caller)?;
    api.store.groups().get(id).await?.ok_or_else(|| missing(id))?;
    if api.store.users().get(user).await?.is_none() {
        return Err(Error::not_found(ResourceKind::User, &call.message.user));
    }
    giving(api, &call.caller, id).await?;
    let added = api.store.groups().add_member(id, user, MANUAL).await;
    added.map_err(|error| cause(error, id))?;
    Ok(proto::AddGroupMemberResponse {})
}

/// Takes a user out of a group.
pub(super) async fn remove_group_member(
    api: &Context,
    call: Call<proto::RemoveGroupMemberRequest>,
) -> Result<proto::RemoveGroupMemberResponse, Error> {
    let id = resource::group("group", &call.message.group)?;
    let user = resource::user("user", &call.message.user, &call.caller)?;
    api.store.groups().get(id).await?.ok_or_else(|| missing(id))?;
    giving(api, &call.caller, id).await?;
    api.store.groups().remove_member(id, user, MANUAL).await?;
    Ok(proto::RemoveGroupMemberResponse {})
}

/// Lists who is in a group.
pub(super) async fn list_group_members(
    api: &Context,
    call: Call<proto::ListGroupMembersRequest>,
) -> Result<proto::ListGroupMembersResponse, Error> {
    let id = resource::group("parent", &call.message.parent)?;
    let scope = PageScope::new("ListGroupMembers").with(&call.message.parent);
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    seen(api, &call.caller, id).await?;
    let page = api.store.groups().members(id, &page).await?;
    Ok(proto::ListGroupMembersResponse {
        members: page.items.iter().map(message).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

fn message(member: &Membership) -> proto::GroupMember {
    proto::GroupMember {
        user: format!("users/{}", member.user),
        username: member.username.clone(),
        sources: member.sources.clone(),
    }
}
