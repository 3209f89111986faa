//! Logins and tokens across two instances.

use harness::eventually;
use rpc::auth::v1::{
    CreateApiTokenRequest, CredentialKind, ListApiTokensRequest, LogoutRequest, RefreshTokenRequest,
    RevokeApiTokenRequest, WhoAmIRequest,
};
use rpc::errors::v1::ErrorReason;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, Caller, PASSWORD, REVOCATION_DEADLINE, World, assert_fails};

async fn who_am_i(caller: &Caller) -> Result<rpc::auth::v1::WhoAmIResponse, tonic::Status> {
    caller
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await
        .map(tonic::Response::into_inner)
}

async fn refused_within_the_promise(caller: &Caller, reason: ErrorReason) {
    eventually(
        REVOCATION_DEADLINE,
        "the token is refused",
        async || match who_am_i(caller).await {
            Ok(_) => Err("it is still good".to_owned()),
            Err(status) if rpc::error::reason(&status) == Some(reason) => Ok(()),
            Err(status) => Err(format!("{status:?}")),
        },
    )
    .await;
}

#[tokio::test]
async fn login_through_one_instance_is_known_to_the_other() {
    let world = World::start().await;
    let tokens = world.a.tokens(ADMIN).await;
    let me = who_am_i(&world.b.with_token(&tokens.access_token)).await.unwrap();
    assert_eq!(me.user, format!("users/{}", world.admin));
    assert_eq!((me.username.as_str(), me.administrator), (ADMIN, true));
    assert_eq!(me.credential_kind(), CredentialKind::AccessToken);
    assert!(me.expire_time.is_some());
}

#[tokio::test]
async fn wrong_password_and_unknown_user_look_alike() {
    let world = World::start().await;
    let wrong = assert_fails(
        world.a.try_login(ADMIN, "wrong password!").await,
        Code::Unauthenticated,
        ErrorReason::LoginFailed,
    );
    let unknown = assert_fails(
        world.a.try_login("nobody", PASSWORD).await,
        Code::Unauthenticated,
        ErrorReason::LoginFailed,
    );
    assert_eq!(
        (wrong.message(), wrong.details()),
        (unknown.message(), unknown.details())
    );
}

#[tokio::test]
async fn refresh_token_works_once_and_its_second_use_ends_the_login() {
    let world = World::start().await;
    let first = world.a.tokens(ADMIN).await;
    let refresh = |token: &str| RefreshTokenRequest {
        refresh_token: token.to_owned(),
    };
    let second = world
        .b
        .anonymous()
        .auth()
        .refresh_token(refresh(&first.refresh_token))
        .await
        .unwrap();
    let second = second.into_inner().tokens.unwrap();
    who_am_i(&world.a.with_token(&second.access_token)).await.unwrap();

    let again = world
        .a
        .anonymous()
        .auth()
        .refresh_token(refresh(&first.refresh_token))
        .await;
    assert_fails(again, Code::Unauthenticated, ErrorReason::TokenRevoked);
    refused_within_the_promise(
        &world.b.with_token(&second.access_token),
        ErrorReason::TokenRevoked,
    )
    .await;
    let successor = world
        .b
        .anonymous()
        .auth()
        .refresh_token(refresh(&second.refresh_token))
        .await;
    assert_fails(successor, Code::Unauthenticated, ErrorReason::TokenRevoked);
}

#[tokio::test]
async fn logout_takes_effect_on_the_other_instance() {
    let world = World::start().await;
    let tokens = world.a.tokens(ADMIN).await;
    let there = world.b.with_token(&tokens.access_token);
    who_am_i(&there).await.unwrap();
    world
        .a
        .with_token(&tokens.access_token)
        .auth()
        .logout(LogoutRequest {})
        .await
        .unwrap();
    refused_within_the_promise(&there, ErrorReason::TokenRevoked).await;
}

#[tokio::test]
async fn wrong_refresh_tokens_are_throttled_and_nobody_who_brings_a_right_one() {
    let world = World::start().await;
    let tokens = world.a.tokens(ADMIN).await;
    let refresh = async |refresh_token: &str| {
        let request = RefreshTokenRequest {
            refresh_token: refresh_token.to_owned(),
        };
        world.a.anonymous().auth().refresh_token(request).await
    };
    let (rest, last) = tokens.refresh_token.split_at(tokens.refresh_token.len() - 1);
    // Of the right form, and given to nobody.
    let wrong = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    for token in [&wrong, &format!("{rest}A")] {
        assert_fails(
            refresh(token).await,
            Code::Unauthenticated,
            ErrorReason::TokenInvalid,
        );
    }
    let connection = world.database.connect().await;
    let attempts = async || -> i32 {
        let sql = "SELECT attempts FROM pgmoor.login_throttles WHERE key LIKE 'refresh-token:%'";
        connection.query_one(sql, &[]).await.unwrap().get(0)
    };
    assert_eq!(attempts().await, 1, "what cannot be a token is not counted");
    let counted = "UPDATE pgmoor.login_throttles SET attempts = 1000 WHERE key LIKE 'refresh-token:%'";
    assert_eq!(connection.execute(counted, &[]).await.unwrap(), 1);
    for _ in 0..3 {
        let throttled = assert_fails(
            refresh(&wrong).await,
            Code::ResourceExhausted,
            ErrorReason::LoginThrottled,
        );
        assert!(throttled.get_details_retry_info().is_some());
    }
    assert_eq!(attempts().await, 1001, "over the limit nothing is written down");
    refresh(&tokens.refresh_token).await.unwrap();
}

#[tokio::test]
async fn api_token_lives_until_it_is_revoked() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let request = CreateApiTokenRequest {
        display_name: "ci".to_owned(),
        lifetime: None,
        ..Default::default()
    };
    let created = admin.auth().create_api_token(request).await.unwrap().into_inner();
    let robot = world.b.with_token(&created.token);
    let me = who_am_i(&robot).await.unwrap();
    assert_eq!(
        (me.credential_kind(), me.expire_time),
        (CredentialKind::ApiToken, None)
    );

    let listed = admin
        .auth()
        .list_api_tokens(ListApiTokensRequest::default())
        .await
        .unwrap()
        .into_inner();
    let name = created.api_token.unwrap().name;
    assert_eq!(
        listed
            .api_tokens
            .iter()
            .map(|token| token.name.clone())
            .collect::<Vec<_>>(),
        std::slice::from_ref(&name)
    );
    admin
        .auth()
        .revoke_api_token(RevokeApiTokenRequest { name })
        .await
        .unwrap();
    refused_within_the_promise(&robot, ErrorReason::TokenRevoked).await;
}

#[tokio::test]
async fn api_tokens_of_others_are_as_good_as_missing() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let request = CreateApiTokenRequest {
        display_name: "ci".to_owned(),
        lifetime: None,
        ..Default::default()
    };
    let token = admin
        .auth()
        .create_api_token(request)
        .await
        .unwrap()
        .into_inner()
        .api_token
        .unwrap();
    let member = world.member("alice").await;
    let theirs = RevokeApiTokenRequest {
        name: token.name.clone(),
    };
    let foreign = assert_fails(
        member.caller.auth().revoke_api_token(theirs).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    let (owner, _) = token.name.split_once("/apiTokens/").unwrap();
    let missing = RevokeApiTokenRequest {
        name: format!("{owner}/apiTokens/{}", world.admin),
    };
    let missing = assert_fails(
        member.caller.auth().revoke_api_token(missing).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    assert_eq!(foreign.message(), missing.message());
}

#[tokio::test]
async fn api_tokens_are_listed_in_pages() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let mut names = Vec::new();
    for number in 0..5 {
        let request = CreateApiTokenRequest {
            display_name: format!("token {number}"),
            lifetime: None,
            ..Default::default()
        };
        let created = admin.auth().create_api_token(request).await.unwrap().into_inner();
        names.insert(0, created.api_token.unwrap().name);
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListApiTokensRequest {
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = admin.auth().list_api_tokens(request).await.unwrap().into_inner();
        assert!(page.api_tokens.len() <= 2);
        listed.extend(page.api_tokens.into_iter().map(|token| token.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, names);
}

#[tokio::test]
async fn api_token_with_wrong_fields_names_each() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let request = CreateApiTokenRequest {
        display_name: "x".repeat(10_000),
        lifetime: Some(prost_types::Duration {
            seconds: i64::MIN,
            nanos: i32::MIN,
        }),
        ..Default::default()
    };
    let status = assert_fails(
        admin.auth().create_api_token(request).await,
        Code::InvalidArgument,
        ErrorReason::InvalidField,
    );
    let fields = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(
        fields
            .iter()
            .map(|field| field.field.as_str())
            .collect::<Vec<_>>(),
        ["display_name", "lifetime"]
    );
}
