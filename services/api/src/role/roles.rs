//! CreateRole, GetRole, ListRoles, UpdateRole, DeleteRole.

use domain::access::{Permission, PermissionSet, Role, RoleName};
use domain::id::RoleId;
use domain::name::DisplayName;
use domain::page::PageScope;
use rpc::access::v1 as proto;
use store::Etag;
use store::roles::{CustomRole, RoleError};

use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::{Error, ResourceKind, Violations};
use crate::{mask, paging, resource};

/// Makes a role.
pub(super) async fn create_role(
    api: &Context,
    call: Call<proto::CreateRoleRequest>,
) -> Result<proto::CreateRoleResponse, Error> {
    let role = call.message.role.unwrap_or_default();
    let mut violations = Violations::default();
    let name = violations.check("role.display_name", role.display_name.parse::<DisplayName>());
    let permissions = permissions(&role.permissions, &mut violations);
    let (Some(name), Some(permissions)) = (name, permissions) else {
        return Err(violations.into_error());
    };
    violations.done()?;
    if !call.caller.may_give(permissions) {
        return Err(Error::EscalationDenied);
    }
    let id = RoleId::generate(api.random.as_ref());
    let created = api.store.roles().create(id, &name, permissions).await;
    let created = created.map_err(|error| cause(error, RoleName::Custom(id)))?;
    Ok(proto::CreateRoleResponse {
        role: Some(message(&created)),
    })
}

/// Reads a role.
pub(super) async fn get_role(
    api: &Context,
    call: Call<proto::GetRoleRequest>,
) -> Result<proto::GetRoleResponse, Error> {
    let role = match resource::role("name", &call.message.name)? {
        RoleName::BuiltIn(role) => built_in(role),
        RoleName::Custom(id) => {
            let found = api.store.roles().get(id).await?;
            message(&found.ok_or_else(|| missing(RoleName::Custom(id)))?)
        }
    };
    Ok(proto::GetRoleResponse { role: Some(role) })
}

/// Lists roles: the built-in ones with the first page.
pub(super) async fn list_roles(
    api: &Context,
    call: Call<proto::ListRolesRequest>,
) -> Result<proto::ListRolesResponse, Error> {
    let scope = PageScope::new("ListRoles");
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    let first = page.after.is_none();
    let page = api.store.roles().list(&page).await?;
    let built_in = Role::ALL.into_iter().filter(|_| first).map(built_in);
    Ok(proto::ListRolesResponse {
        roles: built_in.chain(page.items.iter().map(message)).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Changes a role.
pub(super) async fn update_role(
    api: &Context,
    call: Call<proto::UpdateRoleRequest>,
) -> Result<proto::UpdateRoleResponse, Error> {
    let role = call.message.role.unwrap_or_default();
    let id = custom("role.name", &role.name)?;
    let mut violations = Violations::default();
    let set = [
        ("display_name", !role.display_name.is_empty()),
        ("permissions", !role.permissions.is_empty()),
    ];
    let paths = mask::paths(call.message.update_mask, &set, &mut violations);
    let name = paths
        .contains(&"display_name")
        .then(|| violations.check("role.display_name", role.display_name.parse::<DisplayName>()))
        .flatten();
    let wanted = paths
        .contains(&"permissions")
        .then(|| permissions(&role.permissions, &mut violations))
        .flatten();
    violations.done()?;
    let given = permissions_of(api, RoleName::Custom(id)).await?;
    if !call.caller.may_give(given.union(wanted.unwrap_or_default())) {
        return Err(Error::EscalationDenied);
    }
    let etag = (!role.etag.is_empty()).then(|| Etag::new(role.etag));
    let changed = api
        .store
        .roles()
        .update(id, name.as_ref(), wanted, etag.as_ref())
        .await;
    let changed = changed.map_err(|error| cause(error, RoleName::Custom(id)))?;
    Ok(proto::UpdateRoleResponse {
        role: Some(message(&changed)),
    })
}

/// Deletes a role.
pub(super) async fn delete_role(
    api: &Context,
    call: Call<proto::DeleteRoleRequest>,
) -> Result<proto::DeleteRoleResponse, Error> {
    let id = custom("name", &call.message.name)?;
    let etag = (!call.message.etag.is_empty()).then(|| Etag::new(call.message.etag));
    if !call
        .caller
        .may_give(permissions_of(api, RoleName::Custom(id)).await?)
    {
        return Err(Error::EscalationDenied);
    }
    let deleted = api.store.roles().delete(id, etag.as_ref()).await;
    deleted.map_err(|error| cause(error, RoleName::Custom(id)))?;
    Ok(proto::DeleteRoleResponse {})
}

/// What a role that is not there answers.
pub(super) fn missing(role: RoleName) -> Error {
    Error::not_found(ResourceKind::Role, role)
}

/// The permissions of a role.
pub(super) async fn permissions_of(api: &Context, role: RoleName) -> Result<PermissionSet, Error> {
    match role {
        RoleName::BuiltIn(role) => Ok(role.permissions()),
        RoleName::Custom(id) => {
            let found = api.store.roles().get(id).await?;
            Ok(found.ok_or_else(|| missing(role))?.permissions)
        }
    }
}

fn custom(field: &str, name: &str) -> Result<RoleId, Error> {
    match resource::role(field, name)? {
        RoleName::Custom(id) => Ok(id),
        RoleName::BuiltIn(_) => Err(Error::invalid(field, "is a built-in role, which stays as it is")),
    }
}

fn cause(error: RoleError, role: RoleName) -> Error {
    match error {
        RoleError::NotFound => missing(role),
        RoleError::EtagMismatch => Error::EtagMismatch,
        RoleError::NameTaken => Error::Exists {
            kind: ResourceKind::Role,
            name: role.to_string(),
        },
        RoleError::Bound => Error::InUse {
            kind: ResourceKind::Role,
            name: role.to_string(),
            description: "the role is bound to somebody".to_owned(),
            holders: Vec::new(),
        },
        RoleError::Store(error) => Error::Store(error),
    }
}

/// Reads permissions that users may have.
fn permissions(names: &[String], violations: &mut Violations) -> Option<PermissionSet> {
    let for_users = Role::Administrator.permissions();
    let mut permissions = Vec::new();
    for (index, name) in names.iter().take(Permission::ALL.len() + 1).enumerate() {
        let field = format!("role.permissions[{index}]");
        let known = name.parse::<Permission>().ok();
        let known = known.filter(|permission| for_users.contains(*permission));
        permissions.push(violations.check(&field, known.ok_or("is not a permission of users")));
    }
    if names.is_empty() {
        violations.add("role.permissions", "must not be empty");
    }
    permissions.into_iter().collect()
}

fn message(role: &CustomRole) -> proto::Role {
    proto::Role {
        name: RoleName::Custom(role.id).to_string(),
        display_name: role.display_name.to_string(),
        permissions: names(role.permissions),
        built_in: false,
        create_time: Some(timestamp(role.create_time)),
        update_time: Some(timestamp(role.update_time)),
        etag: role.etag.to_string(),
    }
}

fn built_in(role: Role) -> proto::Role {
    proto::Role {
        name: RoleName::BuiltIn(role).to_string(),
        display_name: role.as_str().to_owned(),
        permissions: names(role.permissions()),
        built_in: true,
        ..proto::Role::default()
    }
}

fn names(permissions: PermissionSet) -> Vec<String> {
    permissions.iter().map(|one| one.as_str().to_owned()).collect()
}
