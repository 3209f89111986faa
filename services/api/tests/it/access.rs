//! Who is let in: every method of the public descriptors.

use bytes::Bytes;
use harness::eventually;
use http::uri::PathAndQuery;
use prost_reflect::DescriptorPool;
use rpc::errors::v1::ErrorReason;
use tonic::client::Grpc;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::world::{ADMIN, DEADLINE, World, assert_fails};

/// The methods that take a caller without credentials, and why.
const ANONYMOUS: [&str; 6] = [
    // These turn credentials into tokens.
    "/pgmoor.auth.v1.AuthService/LoginWithPassword",
    "/pgmoor.auth.v1.AuthService/RefreshToken",
    "/pgmoor.auth.v1.AuthService/StartLogin",
    "/pgmoor.auth.v1.AuthService/PollLogin",
    "/pgmoor.auth.v1.AuthService/ExchangeToken",
    // Says what there is to log in with.
    "/pgmoor.auth.v1.AuthService/GetLoginOptions",
];

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

fn methods() -> Vec<String> {
    let pool = DescriptorPool::decode(rpc::descriptors::PUBLIC).unwrap();
    pool.services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
        .collect()
}

async fn call(world: &World, path: &str, token: Option<&str>) -> Result<(), tonic::Status> {
    let mut client = Grpc::new(world.a.channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(Empty {});
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes())).unwrap();
    client
        .unary::<Empty, Empty, _>(request, path, ProstCodec::default())
        .await
        .map(drop)
}

#[tokio::test]
async fn every_method_but_the_listed_refuses_anonymous_calls() {
    let world = World::start().await;
    let methods = methods();
    assert!(methods.len() > 40, "{methods:?}");
    for path in methods {
        let outcome = call(&world, &path, None).await;
        if ANONYMOUS.contains(&path.as_str()) {
            let reason = outcome.err().and_then(|status| rpc::error::reason(&status));
            assert_ne!(reason, Some(ErrorReason::CredentialsMissing), "{path}");
            continue;
        }
        let status = outcome.expect_err(&path);
        assert_eq!(
            (status.code(), rpc::error::reason(&status)),
            (Code::Unauthenticated, Some(ErrorReason::CredentialsMissing)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_method_refuses_a_made_up_token() {
    let world = World::start().await;
    for path in methods() {
        if ANONYMOUS.contains(&path.as_str()) {
            continue;
        }
        let outcome = call(&world, &path, Some("nonsense")).await;
        assert_fails(outcome, Code::Unauthenticated, ErrorReason::TokenInvalid);
    }
}

#[tokio::test]
async fn disabled_user_is_refused_on_both_instances() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let token = member.caller.token.clone().unwrap();
    let (here, there) = (world.a.with_token(&token), world.b.with_token(&token));
    let admin = world.a.login(ADMIN).await;
    let user = rpc::user::v1::User {
        name: member.name,
        disabled: true,
        ..Default::default()
    };
    let request = rpc::user::v1::UpdateUserRequest {
        user: Some(user),
        update_mask: None,
    };
    admin.users().update_user(request).await.unwrap();
    for caller in [here, there] {
        eventually(
            crate::world::REVOCATION_DEADLINE,
            "the user is refused",
            async || {
                let outcome = caller.auth().who_am_i(rpc::auth::v1::WhoAmIRequest {}).await;
                outcome.err().and_then(|status| rpc::error::reason(&status))
                    == Some(ErrorReason::TokenRevoked)
            },
        )
        .await;
    }
    let login = world.b.try_login("alice", crate::world::PASSWORD).await;
    assert_fails(login, Code::Unauthenticated, ErrorReason::LoginFailed);
}

#[tokio::test]
async fn config_database_that_goes_away_is_unavailable_and_not_internal() {
    let cluster = harness::Cluster::start(harness::ClusterOptions::default()).await;
    let world = World::start_on(&cluster).await;
    let admin = world.a.login(ADMIN).await;
    cluster.stop().await;
    eventually(
        DEADLINE,
        "calls say that the config database is away",
        async || {
            let request = rpc::user::v1::ListUsersRequest::default();
            match admin.users().list_users(request).await {
                Err(status) if status.code() == Code::Unavailable => match rpc::error::reason(&status) {
                    Some(ErrorReason::ConfigDatabaseUnavailable) => Ok(()),
                    other => Err(format!("{other:?}")),
                },
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
    cluster.start_again().await;
    eventually(DEADLINE, "calls work again", async || {
        let request = rpc::user::v1::ListUsersRequest::default();
        admin.users().list_users(request).await.map(drop)
    })
    .await;
}
