//! `roles` and `bindings`: sets of permissions, and to whom they are bound.

use clap::{Args, Subcommand};
use rpc::access::v1::role_binding::Scope;
use rpc::access::v1::{
    CreateRoleBindingRequest, CreateRoleRequest, DeleteRoleBindingRequest, DeleteRoleRequest,
    ListRoleBindingsRequest, ListRolesRequest, Role, RoleBinding, ServerGroup,
};

use super::groups;
use super::instances::named;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text};
use crate::server_name;

/// Roles.
#[derive(Debug, Clone, Subcommand)]
pub enum Roles {
    /// List the roles, built-in ones too
    List,
    /// Make a role
    #[command(
        after_help = "Example:\n  pgmoor roles create readers --permission servers.read --permission backups.read"
    )]
    Create {
        /// What people call it
        display_name: String,
        /// A permission; again for more
        #[arg(long = "permission", value_name = "PERMISSION", required = true)]
        permissions: Vec<String>,
    },
    /// Delete a role that is bound to nobody
    Delete {
        /// roles/{role}, or its id
        role: String,
    },
}

impl Roles {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.roles();
        match self {
            Self::List => {
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListRolesRequest {
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_roles(request.clone()).await)
                        .await?;
                    Ok((page.roles, page.next_page_token))
                };
                let roles = context.pages(None, page).await?;
                context.show_list(&roles).await
            }
            Self::Create {
                display_name,
                permissions,
            } => {
                let request = CreateRoleRequest {
                    role: Some(Role {
                        display_name,
                        permissions,
                        ..Role::default()
                    }),
                };
                let answer = context
                    .change(async || client.clone().create_role(request.clone()).await)
                    .await?;
                let role = answer.role.ok_or(ClientError::Incomplete { field: "role" })?;
                context.show(&role).await
            }
            Self::Delete { role } => {
                let request = DeleteRoleRequest {
                    name: named("roles", role),
                    etag: String::new(),
                };
                context
                    .change(async || client.clone().delete_role(request.clone()).await)
                    .await?;
                context.notes.line("the role is deleted");
                Ok(())
            }
        }
    }
}

/// Bindings of roles.
#[derive(Debug, Clone, Subcommand)]
pub enum Bindings {
    /// List to whom roles are bound
    List,
    /// Bind a role to a user or a group: everywhere, unless a server or a group of servers is named
    #[command(after_help = "\
Examples:
  pgmoor bindings create --role auditor --to carol
  pgmoor bindings create --role member --to groups/team-shop --server shop
  pgmoor bindings create --role member --to groups/dba --owner groups/platform --server-group staging")]
    Create(Create),
    /// Take a role away again; what was opened by it ends within seconds
    Delete {
        /// roleBindings/{binding}, or its id
        binding: String,
    },
}

/// A new binding.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// member, operator, auditor, administrator, or roles/{role}
    #[arg(long)]
    role: String,
    /// A login name, users/{user}, or groups/ and a group's name or id
    #[arg(long, value_name = "MEMBER")]
    to: String,
    /// On this server: its name, id, display name, or group/name
    #[arg(long, conflicts_with_all = ["owner", "server_group"])]
    server: Option<String>,
    /// On servers of this owner: a login name, users/{user}, or groups/ and a group's name or id
    #[arg(long, requires = "server_group", value_name = "MEMBER")]
    owner: Option<String>,
    /// On the servers that the owner has in this group
    #[arg(long, requires = "owner", value_name = "GROUP")]
    server_group: Option<String>,
}

impl Bindings {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::List => {
                let client = context.connection()?.roles();
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListRoleBindingsRequest {
                        page_size,
                        page_token,
                        ..ListRoleBindingsRequest::default()
                    };
                    let page = context
                        .read(async || client.clone().list_role_bindings(request.clone()).await)
                        .await?;
                    Ok((page.role_bindings, page.next_page_token))
                };
                let bindings = context.pages(None, page).await?;
                context.show_list(&bindings).await
            }
            Self::Create(create) => {
                let scope = match (create.server, create.owner, create.server_group) {
                    (Some(server), _, _) => {
                        Some(Scope::Server(server_name::resolve(context, &server).await?))
                    }
                    (None, Some(owner), Some(group)) => Some(Scope::ServerGroup(ServerGroup {
                        owner: groups::resolve_member(context, owner).await?,
                        group,
                    })),
                    _ => None,
                };
                let request = CreateRoleBindingRequest {
                    role_binding: Some(RoleBinding {
                        role: named("roles", create.role),
                        member: groups::resolve_member(context, create.to).await?,
                        scope,
                        ..RoleBinding::default()
                    }),
                };
                let client = context.connection()?.roles();
                let answer = context
                    .change(async || client.clone().create_role_binding(request.clone()).await)
                    .await?;
                let binding = answer.role_binding.ok_or(ClientError::Incomplete {
                    field: "role_binding",
                })?;
                context.show(&binding).await
            }
            Self::Delete { binding } => {
                let request = DeleteRoleBindingRequest {
                    name: named("roleBindings", binding),
                };
                let client = context.connection()?.roles();
                context
                    .change(async || client.clone().delete_role_binding(request.clone()).await)
                    .await?;
                context.notes.line("the role is taken away");
                Ok(())
            }
        }
    }
}

impl Record for Role {
    const MESSAGE: &'static str = "pgmoor.access.v1.Role";
    const COLUMNS: &'static [&'static str] = &["name", "display_name", "built_in", "permissions"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.display_name),
            Some(self.built_in.to_string()),
            text(&self.permissions.join(",")),
        ]
    }
}

impl Record for RoleBinding {
    const MESSAGE: &'static str = "pgmoor.access.v1.RoleBinding";
    const COLUMNS: &'static [&'static str] = &["name", "role", "member", "scope"];

    fn cells(&self) -> Vec<Option<String>> {
        let scope = match &self.scope {
            None => "everywhere".to_owned(),
            Some(Scope::Server(server)) => server.clone(),
            Some(Scope::ServerGroup(servers)) => format!("{} of {}", servers.group, servers.owner),
        };
        vec![
            text(&self.name),
            text(&self.role),
            text(&self.member),
            Some(scope),
        ]
    }
}
