//! Service accounts and people who are invited, as administrators make them.

use rpc::auth::v1::{CreateApiTokenRequest, ListApiTokensRequest, RevokeApiTokenRequest, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use rpc::user::v1::{CreateUserRequest, GetUserRequest, SetPasswordRequest, User, UserKind};
use tonic::Code;

use crate::world::{ADMIN, PASSWORD, World, assert_fails};

fn wish(username: &str, kind: UserKind, email: &str, password: &str) -> CreateUserRequest {
    CreateUserRequest {
        user: Some(User {
            username: username.to_owned(),
            kind: kind.into(),
            email: email.to_owned(),
            ..User::default()
        }),
        password: password.to_owned(),
    }
}

#[tokio::test]
async fn service_account_has_tokens_that_administrators_keep_and_no_password() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let made = admin
        .users()
        .create_user(wish("robot", UserKind::ServiceAccount, "", ""))
        .await;
    let robot = made.unwrap().into_inner().user.unwrap();
    assert_eq!(robot.kind(), UserKind::ServiceAccount);
    let read = admin
        .users()
        .get_user(GetUserRequest {
            name: robot.name.clone(),
        })
        .await;
    assert_eq!(
        read.unwrap().into_inner().user.unwrap().kind(),
        UserKind::ServiceAccount
    );
    for password in ["", PASSWORD] {
        let refused = world.a.try_login("robot", password).await;
        assert_fails(refused, Code::Unauthenticated, ErrorReason::LoginFailed);
    }
    let password = SetPasswordRequest {
        name: robot.name.clone(),
        new_password: PASSWORD.to_owned(),
        ..Default::default()
    };
    let refused = admin.users().set_password(password).await;
    assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidField);

    let token = CreateApiTokenRequest {
        display_name: "job".to_owned(),
        user: robot.name.clone(),
        ..Default::default()
    };
    let member = world.member("alice").await;
    let refused = member.caller.auth().create_api_token(token.clone()).await;
    assert_fails(refused, Code::NotFound, ErrorReason::ResourceNotFound);
    // A person's tokens are theirs, whoever asks.
    let foreign = CreateApiTokenRequest {
        user: member.name.clone(),
        ..token.clone()
    };
    let refused = admin.auth().create_api_token(foreign).await;
    assert_fails(refused, Code::NotFound, ErrorReason::ResourceNotFound);

    let made = admin.auth().create_api_token(token).await.unwrap().into_inner();
    let who = world
        .b
        .with_token(&made.token)
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await;
    assert_eq!(who.unwrap().into_inner().username, "robot");
    let list = ListApiTokensRequest {
        user: robot.name.clone(),
        ..Default::default()
    };
    let listed = admin
        .auth()
        .list_api_tokens(list.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.api_tokens.len(), 1);
    assert_fails(
        member.caller.auth().list_api_tokens(list).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    let name = listed.api_tokens[0].name.clone();
    let revoke = || RevokeApiTokenRequest { name: name.clone() };
    assert_fails(
        member.caller.auth().revoke_api_token(revoke()).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    admin.auth().revoke_api_token(revoke()).await.unwrap();
}

#[tokio::test]
async fn user_of_a_kind_has_what_belongs_to_it() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for (request, field) in [
        (wish("a", UserKind::ServiceAccount, "", PASSWORD), "password"),
        (
            wish("b", UserKind::ServiceAccount, "b@example.com", ""),
            "user.email",
        ),
        (wish("c", UserKind::Person, "", ""), "password"),
        (wish("d", UserKind::Person, "no address", ""), "user.email"),
        (wish("e", UserKind::Person, "@", ""), "user.email"),
    ] {
        let refused = admin.users().create_user(request).await;
        let status = assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidField);
        assert!(status.message().contains(field), "{field}: {status:?}");
    }
    let invited = wish("ann", UserKind::Unspecified, "Ann@Example.com", "");
    let made = admin
        .users()
        .create_user(invited)
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    assert_eq!(
        (made.kind(), made.email.as_str()),
        (UserKind::Person, "ann@example.com")
    );
    let taken = wish("other", UserKind::Person, "ANN@example.com", "");
    assert_fails(
        admin.users().create_user(taken).await,
        Code::AlreadyExists,
        ErrorReason::ResourceExists,
    );
    // Without a password nobody logs in with one.
    let refused = world.a.try_login("ann", "").await;
    assert_fails(refused, Code::Unauthenticated, ErrorReason::LoginFailed);
}
