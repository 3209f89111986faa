//! What is revoked on one instance is refused on every other within seconds.

use std::time::Duration;

use e2e::{Client, World, reason};
use harness::eventually;
use rpc::auth::v1::{CreateApiTokenRequest, LogoutRequest, RevokeApiTokenRequest, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::RunQueryRequest;
use rpc::query::v1::Script;
use rpc::user::v1::{UpdateUserRequest, User};
use tonic::Code;

use crate::worlds::shared;

/// What users are promised.
const WITHIN: Duration = Duration::from_secs(5);

async fn is_refused_soon(client: &Client) {
    eventually(WITHIN, "the other instance refuses the token", async || {
        let answer = client.auth().who_am_i(WhoAmIRequest {}).await;
        match answer.map_err(|status| reason::of(&status)) {
            Err((Code::Unauthenticated, ErrorReason::TokenRevoked)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn is_accepted(client: &Client) {
    client.auth().who_am_i(WhoAmIRequest {}).await.unwrap();
}

#[tokio::test]
async fn logout_through_a_is_known_to_b() {
    let caller = shared().await.world.create_user().await;
    is_accepted(caller.b()).await;
    caller.a().auth().logout(LogoutRequest {}).await.unwrap();
    is_refused_soon(caller.b()).await;
}

#[tokio::test]
async fn api_token_revoked_through_a_is_refused_by_b_and_by_the_pooler() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let request = CreateApiTokenRequest {
        display_name: "for a test".to_owned(),
        lifetime: None,
        ..Default::default()
    };
    let made = caller
        .a()
        .auth()
        .create_api_token(request)
        .await
        .unwrap()
        .into_inner();
    world.secrets().remember("an API token", &made.token);
    let with_token = world.caller(&made.token);
    is_accepted(with_token.b()).await;
    let run = async |client: &Client| {
        let request = RunQueryRequest {
            server: server.clone(),
            script: Some(Script {
                sql: "SELECT 1".to_owned(),
                ..Script::default()
            }),
            ..RunQueryRequest::default()
        };
        client.query().run_query(request).await
    };
    run(with_token.b()).await.unwrap();

    let name = made.api_token.unwrap().name;
    caller
        .a()
        .auth()
        .revoke_api_token(RevokeApiTokenRequest { name })
        .await
        .unwrap();
    is_refused_soon(with_token.b()).await;
    let refused = run(with_token.b()).await;
    reason::expect(refused, Code::Unauthenticated, ErrorReason::TokenRevoked);
}

#[tokio::test]
async fn disabling_a_user_through_a_ends_their_token_on_b() {
    let world: &World = &shared().await.world;
    let caller = world.create_user().await;
    let me = caller
        .b()
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    let request = UpdateUserRequest {
        user: Some(User {
            name: me.user,
            disabled: true,
            ..User::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["disabled".to_owned()],
        }),
    };
    world
        .superuser()
        .await
        .a()
        .users()
        .update_user(request)
        .await
        .unwrap();
    is_refused_soon(caller.b()).await;
}
