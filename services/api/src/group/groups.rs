//! CreateGroup, GetGroup, ListGroups, UpdateGroup, DeleteGroup.

use domain::access::{Caller, Permission};
use domain::id::GroupId;
use domain::name::DisplayName;
use domain::page::PageScope;
use rpc::access::v1 as proto;
use store::Etag;
use store::groups::{CreateGroupError, Group, GroupScope, UpdateGroupError};

use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::{Error, ResourceKind};
use crate::{paging, resource};

/// Makes a group.
pub(super) async fn create_group(
    api: &Context,
    call: Call<proto::CreateGroupRequest>,
) -> Result<proto::CreateGroupResponse, Error> {
    let name = display_name(&call.message.group.unwrap_or_default().display_name)?;
    let id = GroupId::generate(api.random.as_ref());
    let created = api.store.groups().create(id, &name).await;
    let created = created.map_err(|error| match error {
        CreateGroupError::NameTaken => taken(&name),
        CreateGroupError::Store(error) => Error::Store(error),
    })?;
    Ok(proto::CreateGroupResponse {
        group: Some(message(&created)),
    })
}

/// Reads a group.
pub(super) async fn get_group(
    api: &Context,
    call: Call<proto::GetGroupRequest>,
) -> Result<proto::GetGroupResponse, Error> {
    let id = resource::group("name", &call.message.name)?;
    let group = seen(api, &call.caller, id).await?;
    Ok(proto::GetGroupResponse {
        group: Some(message(&group)),
    })
}

/// A group that the caller may see.
pub(super) async fn seen(api: &Context, caller: &Caller, id: GroupId) -> Result<Group, Error> {
    let group = api.store.groups().get(id).await?.ok_or_else(|| missing(id))?;
    let seen = caller.may_everywhere(Permission::GroupsRead)
        || api.store.groups().has_member(id, caller.user).await?;
    if seen { Ok(group) } else { Err(missing(id)) }
}

/// Lists groups by name.
pub(super) async fn list_groups(
    api: &Context,
    call: Call<proto::ListGroupsRequest>,
) -> Result<proto::ListGroupsResponse, Error> {
    let scope = PageScope::new("ListGroups").with(&call.caller.user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let whose = match call.caller.may_everywhere(Permission::GroupsRead) {
        true => GroupScope::All,
        false => GroupScope::Of(call.caller.user),
    };
    let page = api.store.groups().list(whose, &page).await?;
    Ok(proto::ListGroupsResponse {
        groups: page.items.iter().map(message).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Gives a group another name.
pub(super) async fn update_group(
    api: &Context,
    call: Call<proto::UpdateGroupRequest>,
) -> Result<proto::UpdateGroupResponse, Error> {
    let group = call.message.group.unwrap_or_default();
    let id = resource::group("group.name", &group.name)?;
    let name = display_name(&group.display_name)?;
    // A provider's rules name groups: a name is a way in.
    giving(api, &call.caller, id).await?;
    let etag = (!group.etag.is_empty()).then(|| Etag::new(group.etag));
    let changed = api.store.groups().rename(id, &name, etag.as_ref()).await;
    let changed = changed.map_err(|error| cause(error, id))?;
    Ok(proto::UpdateGroupResponse {
        group: Some(message(&changed)),
    })
}

/// Deletes a group.
pub(super) async fn delete_group(
    api: &Context,
    call: Call<proto::DeleteGroupRequest>,
) -> Result<proto::DeleteGroupResponse, Error> {
    let id = resource::group("name", &call.message.name)?;
    giving(api, &call.caller, id).await?;
    let etag = (!call.message.etag.is_empty()).then(|| Etag::new(call.message.etag));
    let deleted = api.store.groups().delete(id, etag.as_ref()).await;
    deleted.map_err(|error| cause(error, id))?;
    Ok(proto::DeleteGroupResponse {})
}

/// Refuses who does not have what the group gives: they say neither who gets it nor who loses it.
pub(super) async fn giving(api: &Context, caller: &Caller, id: GroupId) -> Result<(), Error> {
    if caller.may_give(api.store.groups().gives(id).await?) {
        Ok(())
    } else {
        Err(Error::EscalationDenied)
    }
}

/// What became of a change.
pub(super) fn cause(error: UpdateGroupError, id: GroupId) -> Error {
    match error {
        UpdateGroupError::NotFound => missing(id),
        UpdateGroupError::UserNotFound => Error::not_found(ResourceKind::User, "users/-"),
        UpdateGroupError::EtagMismatch => Error::EtagMismatch,
        UpdateGroupError::NameTaken => Error::Exists {
            kind: ResourceKind::Group,
            name: format!("groups/{id}"),
        },
        UpdateGroupError::OwnsServers => Error::InUse {
            kind: ResourceKind::Group,
            name: format!("groups/{id}"),
            description: "the group owns servers".to_owned(),
            holders: Vec::new(),
        },
        UpdateGroupError::LimitReached(reached) => reached.into(),
        UpdateGroupError::Store(error) => Error::Store(error),
    }
}

/// What a group that is not there answers.
pub(super) fn missing(id: GroupId) -> Error {
    Error::not_found(ResourceKind::Group, format_args!("groups/{id}"))
}

fn taken(name: &DisplayName) -> Error {
    Error::Exists {
        kind: ResourceKind::Group,
        name: name.to_string(),
    }
}

fn display_name(text: &str) -> Result<DisplayName, Error> {
    text.parse()
        .map_err(|error| Error::invalid("group.display_name", error))
}

fn message(group: &Group) -> proto::Group {
    proto::Group {
        name: format!("groups/{}", group.id),
        display_name: group.display_name.to_string(),
        create_time: Some(timestamp(group.create_time)),
        update_time: Some(timestamp(group.update_time)),
        etag: group.etag.to_string(),
    }
}
