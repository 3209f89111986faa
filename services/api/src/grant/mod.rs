//! Sharing servers, and what they allow: the handlers of GrantService.
//!
//! Invariant: nobody grants more of a server than they may do with it themselves.

mod convert;
mod grants;
mod policy;

use std::sync::Arc;

use rpc::access::v1 as proto;
use rpc::access::v1::grant_service_server::GrantService;

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.access.v1.GrantService`.
#[derive(Debug)]
pub(crate) struct GrantRpcs(pub(crate) Arc<Context>);

rpcs! {
    GrantService for GrantRpcs {
        grants::create_grant(CreateGrantRequest) -> CreateGrantResponse;
        grants::get_grant(GetGrantRequest) -> GetGrantResponse;
        grants::list_grants(ListGrantsRequest) -> ListGrantsResponse;
        grants::update_grant(UpdateGrantRequest) -> UpdateGrantResponse;
        grants::delete_grant(DeleteGrantRequest) -> DeleteGrantResponse;
        policy::get_server_policy(GetServerPolicyRequest) -> GetServerPolicyResponse;
        policy::update_server_policy(UpdateServerPolicyRequest) -> UpdateServerPolicyResponse;
    }
}
