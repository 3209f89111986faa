//! Users of a world.

use rpc::server::v1::{GetServerRequest, Instance, InstanceLimits, UpdateInstanceRequest};

use crate::Client;

/// A logged-in user, through the balancer and straight to each API instance.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Through the balancer.
    pub balanced: Client,
    /// Straight to each instance.
    pub apis: Vec<Client>,
}

impl Caller {
    /// Straight to the first instance.
    #[must_use]
    pub fn a(&self) -> &Client {
        &self.apis[0]
    }

    /// Straight to the second instance.
    #[must_use]
    pub fn b(&self) -> &Client {
        &self.apis[1]
    }
}

/// Registers a server and returns its name.
///
/// # Errors
/// What CreateServer answers.
pub async fn create_server(
    caller: &Client,
    server: rpc::server::v1::Server,
    password: &str,
) -> Result<String, tonic::Status> {
    let request = rpc::server::v1::CreateServerRequest {
        server: Some(server),
        password: password.to_owned(),
        validate_only: false,
    };
    let response = caller.servers().create_server(request).await?.into_inner();
    Ok(response.server.map(|server| server.name).unwrap_or_default())
}

/// Sets the budget of the instance that a server of `caller` is on. For an administrator.
///
/// # Errors
/// What GetServer and UpdateInstance answer.
pub async fn set_budget(
    caller: &Client,
    server: &str,
    connections: i32,
    reserved: i32,
) -> Result<(), tonic::Status> {
    let instance = Instance {
        max_connections: connections,
        reserved_connections: reserved,
        ..Default::default()
    };
    update_instance(
        caller,
        server,
        instance,
        &["max_connections", "reserved_connections"],
    )
    .await
}

/// Sets all limits of that instance; what is absent has its default. For an administrator.
///
/// # Errors
/// What GetServer and UpdateInstance answer.
pub async fn set_limits(caller: &Client, server: &str, limits: InstanceLimits) -> Result<(), tonic::Status> {
    let instance = Instance {
        limits: Some(limits),
        ..Default::default()
    };
    update_instance(caller, server, instance, &["limits"]).await
}

async fn update_instance(
    caller: &Client,
    server: &str,
    instance: Instance,
    paths: &[&str],
) -> Result<(), tonic::Status> {
    let request = GetServerRequest {
        name: server.to_owned(),
    };
    let registered = caller.servers().get_server(request).await?.into_inner().server;
    let instance = Instance {
        name: registered.unwrap_or_default().instance,
        ..instance
    };
    let request = UpdateInstanceRequest {
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    };
    caller.instances().update_instance(request).await?;
    Ok(())
}
