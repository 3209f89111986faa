//! `instances`: the physical PostgreSQL endpoints and their connection budgets.

use clap::{Args, Subcommand};
use prost_types::FieldMask;
use rpc::server::v1::{GetInstanceRequest, Instance, ListInstancesRequest, UpdateInstanceRequest};

use super::server_fields::endpoints_text;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text};

/// Instances.
#[derive(Debug, Clone, Subcommand)]
pub enum Instances {
    /// List the instances behind your servers
    List,
    /// Show an instance
    Get {
        /// instances/{instance}, or its id
        instance: String,
    },
    /// Change an instance's connection budget
    #[command(after_help = "Example:\n  pgmoor instances update instances/… --max-connections 30")]
    Update(Update),
}

/// A change of a budget.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// instances/{instance}, or its id
    instance: String,
    /// Most connections pgmoor keeps to it
    #[arg(long, value_name = "N", required_unless_present = "reserved_connections")]
    max_connections: Option<i32>,
    /// Of these, connections kept for administrators and workers
    #[arg(long, value_name = "N")]
    reserved_connections: Option<i32>,
    /// Only if it has not changed since this etag was read
    #[arg(long, default_value = "")]
    etag: String,
}

impl Instances {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.instances();
        match self {
            Self::List => {
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListInstancesRequest {
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_instances(request.clone()).await)
                        .await?;
                    Ok((page.instances, page.next_page_token))
                };
                let instances = context.pages(None, page).await?;
                context.show_list(&instances).await
            }
            Self::Get { instance } => {
                let request = GetInstanceRequest {
                    name: named("instances", instance),
                };
                let answer = context
                    .read(async || client.clone().get_instance(request.clone()).await)
                    .await?;
                context
                    .show(
                        &answer
                            .instance
                            .ok_or(ClientError::Incomplete { field: "instance" })?,
                    )
                    .await
            }
            Self::Update(update) => {
                let paths = [
                    update.max_connections.map(|_| "max_connections"),
                    update.reserved_connections.map(|_| "reserved_connections"),
                ];
                let instance = Instance {
                    name: named("instances", update.instance),
                    max_connections: update.max_connections.unwrap_or_default(),
                    reserved_connections: update.reserved_connections.unwrap_or_default(),
                    etag: update.etag,
                    ..Instance::default()
                };
                let request = UpdateInstanceRequest {
                    instance: Some(instance),
                    update_mask: Some(FieldMask {
                        paths: paths.into_iter().flatten().map(str::to_owned).collect(),
                    }),
                };
                let answer = context
                    .read(async || client.clone().update_instance(request.clone()).await)
                    .await?;
                context
                    .show(
                        &answer
                            .instance
                            .ok_or(ClientError::Incomplete { field: "instance" })?,
                    )
                    .await
            }
        }
    }
}

/// The name of a resource, of which a person may give the id alone.
pub(crate) fn named(collection: &str, given: String) -> String {
    if given.contains('/') {
        given
    } else {
        format!("{collection}/{given}")
    }
}

impl Record for Instance {
    const MESSAGE: &'static str = "pgmoor.server.v1.Instance";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "endpoints",
        "max_connections",
        "reserved_connections",
        "server_version",
        "system_identifier",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            endpoints_text(&self.endpoints),
            Some(self.max_connections.to_string()),
            Some(self.reserved_connections.to_string()),
            text(&self.server_version),
            text(&self.system_identifier),
        ]
    }
}
