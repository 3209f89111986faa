//! Service accounts and people who are invited, as administrators make them.

use domain::id::UserId;
use domain::random::SystemRandom;
use rpc::auth::v1::{CreateApiTokenRequest, ListApiTokensRequest, RevokeApiTokenRequest, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use rpc::user::v1::{
    CreateUserRequest, GetUserRequest, SetPasswordRequest, UpdateUserRequest, User, UserKind,
};
use tonic::Code;

use crate::world::{ADMIN, Caller, PASSWORD, World, assert_fails};

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
async fn tokens_of_a_person_are_made_with_a_login_and_those_of_a_service_account_end_with_what_made_them() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let hour = prost_types::Duration {
        seconds: 3600,
        nanos: 0,
    };
    let wish = |user: &str, lifetime| CreateApiTokenRequest {
        display_name: "job".to_owned(),
        lifetime,
        user: user.to_owned(),
    };
    let robot = make_robot(&admin).await;
    let token = admin.auth().create_api_token(wish("", Some(hour))).await;
    let token = world.a.with_token(&token.unwrap().into_inner().token);
    for user in ["", robot.as_str()] {
        assert_fails(
            token.auth().create_api_token(wish(user, None)).await,
            Code::PermissionDenied,
            ErrorReason::LoginNeeded,
        );
    }

    // An administrator among service accounts: what it makes ends with what it made it with, and its own need not.
    let mask = prost_types::FieldMask {
        paths: vec!["administrator".to_owned()],
    };
    let administrator = UpdateUserRequest {
        user: Some(User {
            name: robot.clone(),
            administrator: true,
            ..User::default()
        }),
        update_mask: Some(mask),
    };
    admin.users().update_user(administrator).await.unwrap();
    let made = admin.auth().create_api_token(wish(&robot, Some(hour))).await;
    let made = made.unwrap().into_inner();
    let end = made.api_token.unwrap().expire_time;
    let brief = world.a.with_token(&made.token);
    let next = brief.auth().create_api_token(wish(&robot, None)).await;
    assert_eq!(next.unwrap().into_inner().api_token.unwrap().expire_time, end);
    let made = admin.auth().create_api_token(wish(&robot, None)).await;
    let lasting = world.a.with_token(&made.unwrap().into_inner().token);
    let next = lasting.auth().create_api_token(wish(&robot, None)).await;
    assert_eq!(next.unwrap().into_inner().api_token.unwrap().expire_time, None);
}

async fn make_robot(admin: &Caller) -> String {
    let robot = wish("robot", UserKind::ServiceAccount, "", "");
    let made = admin.users().create_user(robot).await.unwrap();
    made.into_inner().user.unwrap().name
}

#[tokio::test]
async fn tokens_of_a_person_are_listed_and_revoked_by_whoever_may_change_users() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    let request = CreateApiTokenRequest {
        display_name: "job".to_owned(),
        ..Default::default()
    };
    let made = alice.caller.auth().create_api_token(request).await;
    let made = made.unwrap().into_inner();
    let name = made.api_token.unwrap().name;
    let list = ListApiTokensRequest {
        user: alice.name.clone(),
        ..Default::default()
    };
    let revoke = RevokeApiTokenRequest { name: name.clone() };
    assert_fails(
        bob.caller.auth().list_api_tokens(list.clone()).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    assert_fails(
        bob.caller.auth().revoke_api_token(revoke.clone()).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    let listed = admin.auth().list_api_tokens(list.clone()).await.unwrap();
    let names: Vec<_> = listed
        .into_inner()
        .api_tokens
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, [name]);
    admin.auth().revoke_api_token(revoke).await.unwrap();
    let listed = admin.auth().list_api_tokens(list).await.unwrap();
    assert!(listed.into_inner().api_tokens.is_empty());
    let nobody = ListApiTokensRequest {
        user: format!("users/{}", UserId::generate(&SystemRandom)),
        ..Default::default()
    };
    assert_fails(
        admin.auth().list_api_tokens(nobody).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
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
