//! CreateRoleBinding, GetRoleBinding, ListRoleBindings, DeleteRoleBinding.

use domain::access::{Permission, Principal, RoleName, Scope};
use domain::id::RoleBindingId;
use domain::name::DisplayName;
use domain::page::PageScope;
use rpc::access::v1 as proto;
use rpc::access::v1::role_binding::Scope as ScopeMessage;
use store::role_bindings::{BindRoleError, NewRoleBinding, RoleBinding, RoleBindingFilter};

use super::roles::{missing as no_role, permissions_of};
use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::{Error, ResourceKind};
use crate::{access, paging, resource};

/// Binds a role.
pub(super) async fn create_role_binding(
    api: &Context,
    call: Call<proto::CreateRoleBindingRequest>,
) -> Result<proto::CreateRoleBindingResponse, Error> {
    let binding = call.message.role_binding.unwrap_or_default();
    let role = resource::role("role_binding.role", &binding.role)?;
    let member = resource::principal("role_binding.member", &binding.member, &call.caller)?;
    let scope = scope(binding.scope)?;
    if !call.caller.may_give(permissions_of(api, role).await?) {
        return Err(Error::EscalationDenied);
    }
    let new = NewRoleBinding {
        id: RoleBindingId::generate(api.random.as_ref()),
        role,
        member,
        scope,
    };
    let created = api.store.role_bindings().create(&new).await;
    let created = created.map_err(|error| match error {
        BindRoleError::RoleNotFound => no_role(role),
        BindRoleError::MemberNotFound => no_principal(member),
        BindRoleError::ScopeNotFound => Error::invalid("role_binding.scope", "is not there"),
        BindRoleError::LimitReached(reached) => reached.into(),
        BindRoleError::Store(error) => Error::Store(error),
    })?;
    Ok(proto::CreateRoleBindingResponse {
        role_binding: Some(message(&created)),
    })
}

/// Reads a binding.
pub(super) async fn get_role_binding(
    api: &Context,
    call: Call<proto::GetRoleBindingRequest>,
) -> Result<proto::GetRoleBindingResponse, Error> {
    let id = resource::role_binding("name", &call.message.name)?;
    access::everywhere(&call.caller, Permission::RolesRead)?;
    let found = api.store.role_bindings().get(id).await?;
    Ok(proto::GetRoleBindingResponse {
        role_binding: Some(message(&found.ok_or_else(|| missing(id))?)),
    })
}

/// Lists bindings.
pub(super) async fn list_role_bindings(
    api: &Context,
    call: Call<proto::ListRoleBindingsRequest>,
) -> Result<proto::ListRoleBindingsResponse, Error> {
    let request = call.message;
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let filter = RoleBindingFilter {
        role: given(&request.role)
            .map(|role| resource::role("role", &role))
            .transpose()?,
        member: given(&request.member)
            .map(|member| resource::principal("member", &member, &call.caller))
            .transpose()?,
        server: given(&request.server)
            .map(|server| resource::server("server", &server))
            .transpose()?,
    };
    let scope = PageScope::new("ListRoleBindings")
        .with(&request.role)
        .with(&request.member)
        .with(&request.server);
    let page = paging::request(&scope, request.page_size, &request.page_token)?;
    let page = api.store.role_bindings().list(&filter, &page).await?;
    Ok(proto::ListRoleBindingsResponse {
        role_bindings: page.items.iter().map(message).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Takes a role away.
pub(super) async fn delete_role_binding(
    api: &Context,
    call: Call<proto::DeleteRoleBindingRequest>,
) -> Result<proto::DeleteRoleBindingResponse, Error> {
    let id = resource::role_binding("name", &call.message.name)?;
    let found = api.store.role_bindings().get(id).await?;
    let found = found.ok_or_else(|| missing(id))?;
    // Nobody takes from others what they do not have either.
    if !call.caller.may_give(permissions_of(api, found.role).await?) {
        return Err(Error::EscalationDenied);
    }
    if api.store.role_bindings().delete(id).await? {
        Ok(proto::DeleteRoleBindingResponse {})
    } else {
        Err(missing(id))
    }
}

fn scope(given: Option<ScopeMessage>) -> Result<Scope, Error> {
    Ok(match given {
        None => Scope::Everywhere,
        Some(ScopeMessage::Server(server)) => {
            Scope::Server(resource::server("role_binding.server", &server)?)
        }
        Some(ScopeMessage::ServerGroup(servers)) => {
            let field = "role_binding.server_group";
            let owner: Result<Principal, _> = servers.owner.parse();
            let group: Result<DisplayName, _> = servers.group.parse();
            Scope::ServerGroup {
                owner: owner.map_err(|_| {
                    let form = "must be of the form users/{user} or groups/{group}";
                    Error::invalid(format!("{field}.owner"), form)
                })?,
                group: group.map_err(|error| Error::invalid(format!("{field}.group"), error))?,
            }
        }
    })
}

/// What a user or a group that is not there answers.
pub(crate) fn no_principal(principal: Principal) -> Error {
    let kind = match principal {
        Principal::User(_) => ResourceKind::User,
        Principal::Group(_) => ResourceKind::Group,
    };
    Error::not_found(kind, principal)
}

fn missing(id: RoleBindingId) -> Error {
    Error::not_found(ResourceKind::RoleBinding, format_args!("roleBindings/{id}"))
}

fn message(binding: &RoleBinding) -> proto::RoleBinding {
    let role: RoleName = binding.role;
    proto::RoleBinding {
        name: format!("roleBindings/{}", binding.id),
        role: role.to_string(),
        member: binding.member.to_string(),
        scope: match &binding.scope {
            Scope::Everywhere => None,
            Scope::Server(server) => Some(ScopeMessage::Server(format!("servers/{server}"))),
            Scope::ServerGroup { owner, group } => Some(ScopeMessage::ServerGroup(proto::ServerGroup {
                owner: owner.to_string(),
                group: group.to_string(),
            })),
        },
        create_time: Some(timestamp(binding.create_time)),
    }
}
