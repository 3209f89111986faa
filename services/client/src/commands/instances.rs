//! `instances`: the physical PostgreSQL endpoints and their connection budgets.

use std::time::Duration;

use clap::{Args, Subcommand};
use domain::limits::{Limit, Limits, Unit};
use prost_types::FieldMask;
use rpc::server::v1::{
    GetInstanceRequest, Instance, InstanceLimits, ListInstancesRequest, UpdateInstanceRequest,
};

use super::server_fields::endpoints_text;
use super::token::wire_duration;
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
    /// Change an instance's connection budget and limits
    #[command(after_help = "\
Examples:
  pgmoor instances update instances/… --max-connections 30
  pgmoor instances update instances/… --limit pool_size=5 --limit server_idle_timeout=2min
  pgmoor instances update instances/… --limit pool_size=

A limit without a value goes back to its default. `pgmoor instances get` shows those that hold.")]
    Update(Update),
}

/// A change of a budget.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// instances/{instance}, or its id
    instance: String,
    /// Most connections pgmoor keeps to it
    #[arg(long, value_name = "N", required_unless_present_any = ["reserved_connections", "limits"])]
    max_connections: Option<i32>,
    /// Of these, connections kept for administrators and workers
    #[arg(long, value_name = "N")]
    reserved_connections: Option<i32>,
    /// Another limit, as a number or a time like 90s; again for more
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit)]
    limits: Vec<(Limit, Option<u64>)>,
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
                let mut limits = InstanceLimits::default();
                for (limit, value) in &update.limits {
                    set_limit(&mut limits, *limit, *value);
                }
                let paths = [
                    update.max_connections.map(|_| "max_connections".to_owned()),
                    update
                        .reserved_connections
                        .map(|_| "reserved_connections".to_owned()),
                ];
                let limit_paths = update
                    .limits
                    .iter()
                    .map(|(limit, _)| Some(format!("limits.{limit}")));
                let instance = Instance {
                    name: named("instances", update.instance),
                    max_connections: update.max_connections.unwrap_or_default(),
                    reserved_connections: update.reserved_connections.unwrap_or_default(),
                    etag: update.etag,
                    limits: Some(limits),
                    ..Instance::default()
                };
                let request = UpdateInstanceRequest {
                    instance: Some(instance),
                    update_mask: Some(FieldMask {
                        paths: paths.into_iter().chain(limit_paths).flatten().collect(),
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

/// Reads `name=value`; without a value the limit's default is meant.
fn parse_limit(text: &str) -> Result<(Limit, Option<u64>), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let limit = Limit::named(name).ok_or_else(|| {
        let names: Vec<&str> = Limit::ALL.map(Limit::name).to_vec();
        format!("there is no limit {name}; there are {}", names.join(", "))
    })?;
    if value.is_empty() {
        return Ok((limit, None));
    }
    let number = match limit.unit() {
        Unit::Count => value.parse().map_err(|_| "must be a number".to_owned())?,
        // 0 needs no unit.
        Unit::Time if value == "0" => 0,
        Unit::Time => {
            let time = humantime::parse_duration(value).map_err(|error| error.to_string())?;
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        }
    };
    Limits::default()
        .choose(limit, Some(number))
        .map_err(|error| error.to_string())?;
    Ok((limit, Some(number)))
}

fn set_limit(limits: &mut InstanceLimits, limit: Limit, value: Option<u64>) {
    // Checked when it was read: no limit is larger.
    let count = value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
    let time = value.map(Duration::from_millis).map(wire_duration);
    match limit {
        Limit::PoolSize => limits.pool_size = count,
        Limit::MinPoolSize => limits.min_pool_size = count,
        Limit::ReservePoolTimeout => limits.reserve_pool_timeout = time,
        Limit::MaxPinnedConnections => limits.max_pinned_connections = count,
        Limit::MaxUserSessions => limits.max_user_sessions = count,
        Limit::MaxWaiting => limits.max_waiting = count,
        Limit::QueryWaitTimeout => limits.query_wait_timeout = time,
        Limit::ServerConnectTimeout => limits.server_connect_timeout = time,
        Limit::ServerIdleTimeout => limits.server_idle_timeout = time,
        Limit::ServerLifetime => limits.server_lifetime = time,
        Limit::ServerLifetimeJitter => limits.server_lifetime_jitter = time,
        Limit::ServerCheckDelay => limits.server_check_delay = time,
        Limit::ClientIdleTimeout => limits.client_idle_timeout = time,
        Limit::PinnedIdleTimeout => limits.pinned_idle_timeout = time,
        Limit::IdleTransactionTimeout => limits.idle_transaction_timeout = time,
        Limit::TransactionTimeout => limits.transaction_timeout = time,
        Limit::QueryTimeout => limits.query_timeout = time,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_units() {
        assert_eq!(parse_limit("pool_size=5"), Ok((Limit::PoolSize, Some(5))));
        assert_eq!(
            parse_limit("server_idle_timeout=2min"),
            Ok((Limit::ServerIdleTimeout, Some(120_000)))
        );
        assert_eq!(parse_limit("query_timeout=0"), Ok((Limit::QueryTimeout, Some(0))));
        assert_eq!(parse_limit("pool_size="), Ok((Limit::PoolSize, None)));
        for wrong in [
            "pool_size",
            "poolsize=1",
            "pool_size=5s",
            "max_waiting=0",
            "query_timeout=5",
        ] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
