//! GetInstance, ListInstances.

use domain::access::{Caller, Permission};
use domain::page::PageScope;
use rpc::server::v1::{GetInstanceRequest, GetInstanceResponse, ListInstancesRequest, ListInstancesResponse};
use store::instances::InstanceScope;

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{paging, resource};

/// The instances a caller may see.
fn visible_to(caller: &Caller) -> InstanceScope {
    if caller.may_everywhere(Permission::InstancesRead) {
        InstanceScope::All
    } else {
        InstanceScope::ServersOf(caller.user)
    }
}

/// Reads an instance.
pub(super) async fn get_instance(
    api: &Context,
    call: Call<GetInstanceRequest>,
) -> Result<GetInstanceResponse, Error> {
    let id = resource::instance("name", &call.message.name)?;
    let missing = || Error::not_found(ResourceKind::Instance, &call.message.name);
    let seen = call.caller.may_everywhere(Permission::InstancesRead)
        || api.store.instances().is_seen_by(id, call.caller.user).await?;
    if !seen {
        return Err(missing());
    }
    let instance = api.store.instances().get(id).await?.ok_or_else(missing)?;
    Ok(GetInstanceResponse {
        instance: Some(convert::instance(&instance)),
    })
}

/// Lists the instances the caller may see, oldest first.
pub(super) async fn list_instances(
    api: &Context,
    call: Call<ListInstancesRequest>,
) -> Result<ListInstancesResponse, Error> {
    let scope = PageScope::new("ListInstances").with(&call.caller.user.to_string());
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let page = api
        .store
        .instances()
        .list(visible_to(&call.caller), &page)
        .await?;
    Ok(ListInstancesResponse {
        instances: page.items.iter().map(convert::instance).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}
