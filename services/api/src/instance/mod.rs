//! Physical PostgreSQL endpoints and their budgets: the handlers of InstanceService.
//!
//! Invariant: an instance is seen by those who may see a server on it, and by those who may see all.

mod convert;
mod limits;
mod read;
mod update_instance;

use std::sync::Arc;

use rpc::server::v1 as proto;
use rpc::server::v1::instance_service_server::InstanceService;

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.server.v1.InstanceService`.
#[derive(Debug)]
pub(crate) struct InstanceRpcs(pub(crate) Arc<Context>);

rpcs! {
    InstanceService for InstanceRpcs {
        read::get_instance(GetInstanceRequest) -> GetInstanceResponse;
        read::list_instances(ListInstancesRequest) -> ListInstancesResponse;
        update_instance::update_instance(UpdateInstanceRequest) -> UpdateInstanceResponse;
    }
}
