//! `groups`: numbers of users.

use clap::Subcommand;
use rpc::access::v1::{
    AddGroupMemberRequest, CreateGroupRequest, DeleteGroupRequest, Group, GroupMember,
    ListGroupMembersRequest, ListGroupsRequest, RemoveGroupMemberRequest,
};

use super::users;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time};

const COLLECTION: &str = "groups/";

/// Groups. GROUP is a group's display name, its id, or groups/ and either.
#[derive(Debug, Clone, Subcommand)]
pub enum Groups {
    /// List your groups, or all of them where you may see them
    List,
    /// Make a group
    Create {
        /// What people call it
        display_name: String,
    },
    /// Delete a group, with what it was granted
    Delete {
        /// The group
        group: String,
    },
    /// List who is in a group
    Members {
        /// The group
        group: String,
    },
    /// Take a user into a group
    Add {
        /// The group
        group: String,
        /// The login name, or users/{user}
        user: String,
    },
    /// Take a user out of a group
    Remove {
        /// The group
        group: String,
        /// The login name, or users/{user}
        user: String,
    },
}

impl Groups {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::List => {
                let groups = all(context).await?;
                context.show_list(&groups).await
            }
            Self::Create { display_name } => {
                let request = CreateGroupRequest {
                    group: Some(Group {
                        display_name,
                        ..Group::default()
                    }),
                };
                let client = context.connection()?.groups();
                let answer = context
                    .change(async || client.clone().create_group(request.clone()).await)
                    .await?;
                let group = answer.group.ok_or(ClientError::Incomplete { field: "group" })?;
                context.show(&group).await
            }
            Self::Delete { group } => {
                let request = DeleteGroupRequest {
                    name: resolve(context, group).await?,
                    etag: String::new(),
                };
                let client = context.connection()?.groups();
                context
                    .change(async || client.clone().delete_group(request.clone()).await)
                    .await?;
                context.notes.line("the group is deleted");
                Ok(())
            }
            Self::Members { group } => {
                let parent = resolve(context, group).await?;
                let client = context.connection()?.groups();
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListGroupMembersRequest {
                        parent: parent.clone(),
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_group_members(request.clone()).await)
                        .await?;
                    Ok((page.members, page.next_page_token))
                };
                let members = context.pages(None, page).await?;
                context.show_list(&members).await
            }
            Self::Add { group, user } => {
                let request = AddGroupMemberRequest {
                    group: resolve(context, group).await?,
                    user: users::resolve(context, user).await?,
                };
                let client = context.connection()?.groups();
                context
                    .read(async || client.clone().add_group_member(request.clone()).await)
                    .await?;
                context.notes.line("the user is in the group");
                Ok(())
            }
            Self::Remove { group, user } => {
                let request = RemoveGroupMemberRequest {
                    group: resolve(context, group).await?,
                    user: users::resolve(context, user).await?,
                };
                let client = context.connection()?.groups();
                context
                    .read(async || client.clone().remove_group_member(request.clone()).await)
                    .await?;
                context
                    .notes
                    .line("the user is not in the group by hand any more");
                Ok(())
            }
        }
    }
}

async fn all(context: &mut Context) -> Result<Vec<Group>, ClientError> {
    let client = context.connection()?.groups();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListGroupsRequest {
            page_size,
            page_token,
        };
        let page = context
            .read(async || client.clone().list_groups(request.clone()).await)
            .await?;
        Ok((page.groups, page.next_page_token))
    };
    context.pages(None, page).await
}

/// The name of the group that a display name or an id means.
async fn resolve(context: &mut Context, given: String) -> Result<String, ClientError> {
    let named = given.strip_prefix(COLLECTION).unwrap_or(&given);
    if named.parse::<domain::id::GroupId>().is_ok() {
        return Ok(format!("{COLLECTION}{named}"));
    }
    let groups = all(context).await?;
    let found = groups.into_iter().find(|group| group.display_name == named);
    found.map(|group| group.name).ok_or(ClientError::NotFound {
        kind: "group",
        name: given,
    })
}

/// The name of the user or group that is meant: `groups/` and a name or id, or a user.
pub(crate) async fn resolve_member(context: &mut Context, given: String) -> Result<String, ClientError> {
    if given.starts_with(COLLECTION) {
        resolve(context, given).await
    } else {
        users::resolve(context, given).await
    }
}

impl Record for Group {
    const MESSAGE: &'static str = "pgmoor.access.v1.Group";
    const COLUMNS: &'static [&'static str] = &["name", "display_name", "create_time"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.display_name),
            time(self.create_time.as_ref()),
        ]
    }
}

impl Record for GroupMember {
    const MESSAGE: &'static str = "pgmoor.access.v1.GroupMember";
    const COLUMNS: &'static [&'static str] = &["user", "username", "sources"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.user),
            text(&self.username),
            text(&self.sources.join(",")),
        ]
    }
}
