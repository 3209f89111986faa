//! GetInstance, ListInstances.

use domain::access::Caller;
use domain::id::{InstanceId, UserId};
use domain::page::PageScope;
use rpc::server::v1::{GetInstanceRequest, GetInstanceResponse, ListInstancesRequest, ListInstancesResponse};
use store::instances::InstanceScope;
use store::{PageRequest, PageSize, StoreError};

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{paging, resource};

/// The instances a caller may see.
fn visible_to(caller: &Caller) -> InstanceScope {
    if caller.administrator {
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
    if !call.caller.administrator && !has_server_on(api, call.caller.user, id).await? {
        return Err(missing());
    }
    let instance = api.store.instances().get(id).await?.ok_or_else(missing)?;
    Ok(GetInstanceResponse {
        instance: Some(convert::instance(&instance)),
    })
}

/// Whether the user has a server on the instance.
async fn has_server_on(api: &Context, user: UserId, instance: InstanceId) -> Result<bool, StoreError> {
    let mut request = PageRequest {
        size: PageSize::new(u32::MAX),
        after: None,
    };
    loop {
        let page = api.store.servers().list(user, &request).await?;
        if page.items.iter().any(|server| server.instance_id == instance) {
            return Ok(true);
        }
        request.after = page.next;
        if request.after.is_none() {
            return Ok(false);
        }
    }
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
