//! Roles, to whom they are bound, and what follows: the handlers of RoleService.
//!
//! Invariant: nobody makes, changes or binds a role that has what they do not have everywhere themselves; administrators may.

mod bindings;
mod explain_access;
mod roles;

use std::sync::Arc;

use rpc::access::v1 as proto;
use rpc::access::v1::role_service_server::RoleService;

use crate::context::Context;
use crate::rpcs::rpcs;

pub(crate) use bindings::no_principal;

/// Serves `pgmoor.access.v1.RoleService`.
#[derive(Debug)]
pub(crate) struct RoleRpcs(pub(crate) Arc<Context>);

rpcs! {
    RoleService for RoleRpcs {
        roles::create_role(CreateRoleRequest) -> CreateRoleResponse;
        roles::get_role(GetRoleRequest) -> GetRoleResponse;
        roles::list_roles(ListRolesRequest) -> ListRolesResponse;
        roles::update_role(UpdateRoleRequest) -> UpdateRoleResponse;
        roles::delete_role(DeleteRoleRequest) -> DeleteRoleResponse;
        bindings::create_role_binding(CreateRoleBindingRequest) -> CreateRoleBindingResponse;
        bindings::get_role_binding(GetRoleBindingRequest) -> GetRoleBindingResponse;
        bindings::list_role_bindings(ListRoleBindingsRequest) -> ListRoleBindingsResponse;
        bindings::delete_role_binding(DeleteRoleBindingRequest) -> DeleteRoleBindingResponse;
        explain_access::explain_access(ExplainAccessRequest) -> ExplainAccessResponse;
    }
}
