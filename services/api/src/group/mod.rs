//! Groups of users: the handlers of GroupService.
//!
//! Invariant: who takes somebody into a group has all that the group has; and a membership that a provider's claims made is
//! not touched by hand.

mod groups;
mod members;

use std::sync::Arc;

use rpc::access::v1 as proto;
use rpc::access::v1::group_service_server::GroupService;

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.access.v1.GroupService`.
#[derive(Debug)]
pub(crate) struct GroupRpcs(pub(crate) Arc<Context>);

rpcs! {
    GroupService for GroupRpcs {
        groups::create_group(CreateGroupRequest) -> CreateGroupResponse;
        groups::get_group(GetGroupRequest) -> GetGroupResponse;
        groups::list_groups(ListGroupsRequest) -> ListGroupsResponse;
        groups::update_group(UpdateGroupRequest) -> UpdateGroupResponse;
        groups::delete_group(DeleteGroupRequest) -> DeleteGroupResponse;
        members::add_group_member(AddGroupMemberRequest) -> AddGroupMemberResponse;
        members::remove_group_member(RemoveGroupMemberRequest) -> RemoveGroupMemberResponse;
        members::list_group_members(ListGroupMembersRequest) -> ListGroupMembersResponse;
    }
}
