//! Addresses pgmoor never connects to, though this world's policy allows every network.

use e2e::world::create_server;
use e2e::{Client, reason};
use rpc::errors::v1::ErrorReason;
use rpc::server::v1::{Endpoint, Server, TestServerRequest};
use tonic::{Code, Status};

use crate::worlds::shared;

/// Registers a server there and tests it: an address is refused when it is written, a name at the latest when
/// it is used.
async fn reach(client: &Client, server: Server) -> Result<(), Status> {
    let name = create_server(client, server, "a password that stays here").await?;
    let request = TestServerRequest {
        name,
        database: String::new(),
        ..Default::default()
    };
    client.servers().test_server(request).await.map(drop)
}

async fn expect_denied(host: &str, port: u16) {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let mut server = world.target_server();
    server.endpoints = vec![Endpoint {
        host: host.to_owned(),
        port: i32::from(port),
    }];
    let answer = reach(caller.a(), server).await;
    reason::expect(answer, Code::PermissionDenied, ErrorReason::EgressDenied);
}

#[tokio::test]
async fn metadata_services_are_denied() {
    expect_denied("169.254.169.254", 80).await;
    expect_denied("fd00:ec2::254", 80).await;
}

#[tokio::test]
async fn loopback_is_denied_in_every_spelling() {
    for host in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
        expect_denied(host, 1).await;
    }
}

#[tokio::test]
async fn name_that_resolves_to_loopback_is_denied() {
    expect_denied("localhost", 1).await;
    expect_denied("LOCALHOST.", 1).await;
}

#[tokio::test]
async fn config_database_is_denied_by_address_and_by_name() {
    let port = shared().await.world.config_database().cluster().port();
    expect_denied("127.0.0.1", port).await;
    expect_denied("localhost", port).await;
}

#[tokio::test]
async fn nothing_is_connected_to_in_the_config_database() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let mut server = world.target_server();
    // One endpoint that is allowed does not smuggle in another that is not.
    server.endpoints.push(Endpoint {
        host: "localhost".to_owned(),
        port: i32::from(world.config_database().cluster().port()),
    });
    server.username = "egress_canary".to_owned();
    let answer = reach(caller.a(), server).await;
    assert!(answer.is_err());
    let log = world.config_database().cluster().log_text();
    assert!(
        !log.contains("egress_canary"),
        "the config database was asked to let a user in"
    );
}
