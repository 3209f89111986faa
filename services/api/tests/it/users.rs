//! Users and their passwords.

use prost_types::FieldMask;
use rpc::errors::v1::ErrorReason;
use rpc::user::v1::{
    CreateUserRequest, GetUserRequest, ListUsersRequest, SetPasswordRequest, UpdateUserRequest, User,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, PASSWORD, World, assert_fails};

const NEW_PASSWORD: &str = "another good password";

fn creation(username: &str, password: &str) -> CreateUserRequest {
    let user = User {
        username: username.to_owned(),
        ..User::default()
    };
    CreateUserRequest {
        user: Some(user),
        password: password.to_owned(),
    }
}

fn password_change(name: &str, current: &str, new: &str) -> SetPasswordRequest {
    SetPasswordRequest {
        name: name.to_owned(),
        current_password: current.to_owned(),
        new_password: new.to_owned(),
    }
}

#[tokio::test]
async fn username_is_taken_in_any_spelling() {
    let world = World::start().await;
    world.member("alice").await;
    let admin = world.a.login(ADMIN).await;
    let taken = admin.users().create_user(creation("ALICE", PASSWORD)).await;
    assert_fails(taken, Code::AlreadyExists, ErrorReason::ResourceExists);
}

#[tokio::test]
async fn wrong_fields_of_a_new_user_are_all_named() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for username in ["", "a b", "a\0b", &"x".repeat(10_000)] {
        let status = assert_fails(
            admin.users().create_user(creation(username, "short")).await,
            Code::InvalidArgument,
            ErrorReason::InvalidField,
        );
        let fields = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<_> = fields.into_iter().map(|field| field.field).collect();
        assert!(fields.contains(&"user.username".to_owned()), "{fields:?}");
        assert!(fields.contains(&"password".to_owned()), "{fields:?}");
        assert!(!format!("{status:?}").contains("short"));
    }
}

#[tokio::test]
async fn members_see_themselves_and_nobody_else() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let get = |name: &str| GetUserRequest {
        name: name.to_owned(),
    };
    let me = member
        .caller
        .users()
        .get_user(get("users/me"))
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    assert_eq!(
        (me.name.as_str(), me.username.as_str()),
        (member.name.as_str(), "alice")
    );
    let admin = member
        .caller
        .users()
        .get_user(get(&format!("users/{}", world.admin)))
        .await;
    let admin = assert_fails(admin, Code::NotFound, ErrorReason::ResourceNotFound);
    let absent = get("users/00000000-0000-4000-8000-000000000000");
    let absent = member.caller.users().get_user(absent).await;
    let absent = assert_fails(absent, Code::NotFound, ErrorReason::ResourceNotFound);
    assert_eq!(admin.message(), absent.message());
    for name in [
        "users/",
        "users/ME",
        "alice",
        &format!("users/{}", "x".repeat(10_000)),
    ] {
        let malformed = member.caller.users().get_user(get(name)).await;
        assert_fails(malformed, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    let list = member
        .caller
        .users()
        .list_users(ListUsersRequest::default())
        .await;
    assert_fails(list, Code::PermissionDenied, ErrorReason::PermissionMissing);
}

#[tokio::test]
async fn users_are_listed_in_pages_whose_tokens_belong_to_the_list() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for name in ["zoe", "Bob", "carol"] {
        admin.users().create_user(creation(name, PASSWORD)).await.unwrap();
    }
    let page = |page_size, page_token: &str| ListUsersRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let first = admin.users().list_users(page(3, "")).await.unwrap().into_inner();
    let names: Vec<_> = first.users.iter().map(|user| user.username.as_str()).collect();
    assert_eq!(names, ["admin", "Bob", "carol"]);
    // The next page comes through the other instance.
    let there = world.b.with_token(admin.token.as_deref().unwrap());
    let second = there
        .users()
        .list_users(page(3, &first.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.users.len(), 1);
    assert_eq!(
        (second.users[0].username.as_str(), second.next_page_token.as_str()),
        ("zoe", "")
    );

    for token in [
        "x",
        "AAAA",
        &"A".repeat(10_000),
        &format!("{}A", first.next_page_token),
    ] {
        let odd = admin.users().list_users(page(3, token)).await;
        assert_fails(odd, Code::InvalidArgument, ErrorReason::InvalidPageToken);
    }
    let foreign = rpc::auth::v1::ListApiTokensRequest {
        page_token: first.next_page_token.clone(),
        ..Default::default()
    };
    let foreign = admin.auth().list_api_tokens(foreign).await;
    assert_fails(foreign, Code::InvalidArgument, ErrorReason::InvalidPageToken);
    let negative = admin.users().list_users(page(-1, "")).await;
    assert_fails(negative, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn last_administrator_stays() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let demote = |name: &str| UpdateUserRequest {
        user: Some(User {
            name: name.to_owned(),
            ..User::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["administrator".to_owned()],
        }),
    };
    let status = assert_fails(
        admin.users().update_user(demote("users/me")).await,
        Code::FailedPrecondition,
        ErrorReason::ResourceInUse,
    );
    assert_eq!(
        status
            .get_details_precondition_failure()
            .unwrap()
            .violations
            .len(),
        1
    );
    let member = world.member("alice").await;
    let promote = User {
        name: member.name,
        administrator: true,
        ..User::default()
    };
    let promote = UpdateUserRequest {
        user: Some(promote),
        update_mask: None,
    };
    admin.users().update_user(promote).await.unwrap();
    admin.users().update_user(demote("users/me")).await.unwrap();
}

#[tokio::test]
async fn stale_etag_changes_nothing() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let admin = world.a.login(ADMIN).await;
    let change = |display_name: &str, etag: &str| UpdateUserRequest {
        user: Some(User {
            name: member.name.clone(),
            display_name: display_name.to_owned(),
            etag: etag.to_owned(),
            ..User::default()
        }),
        update_mask: None,
    };
    let before = GetUserRequest {
        name: member.name.clone(),
    };
    let before = admin
        .users()
        .get_user(before)
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    admin
        .users()
        .update_user(change("Alice", &before.etag))
        .await
        .unwrap();
    let stale = admin.users().update_user(change("Malice", &before.etag)).await;
    assert_fails(stale, Code::Aborted, ErrorReason::EtagMismatch);
    let unknown = UpdateUserRequest {
        update_mask: Some(FieldMask {
            paths: vec!["username".to_owned()],
        }),
        ..change("Alice", "")
    };
    let unknown = admin.users().update_user(unknown).await;
    assert_fails(unknown, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn password_is_set_with_the_current_one() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let wrong = password_change("users/me", "not the password", NEW_PASSWORD);
    let wrong = member.caller.users().set_password(wrong).await;
    assert_fails(wrong, Code::Unauthenticated, ErrorReason::LoginFailed);
    let short = member
        .caller
        .users()
        .set_password(password_change("users/me", PASSWORD, "short"))
        .await;
    assert_fails(short, Code::InvalidArgument, ErrorReason::InvalidField);
    member
        .caller
        .users()
        .set_password(password_change("users/me", PASSWORD, NEW_PASSWORD))
        .await
        .unwrap();
    world.b.try_login("alice", NEW_PASSWORD).await.unwrap();
    let old = world.b.try_login("alice", PASSWORD).await;
    assert_fails(old, Code::Unauthenticated, ErrorReason::LoginFailed);
}

#[tokio::test]
async fn password_of_another_is_the_administrators_to_set() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let admin_name = format!("users/{}", world.admin);
    let theirs = member
        .caller
        .users()
        .set_password(password_change(&admin_name, PASSWORD, NEW_PASSWORD))
        .await;
    assert_fails(theirs, Code::NotFound, ErrorReason::ResourceNotFound);
    let admin = world.a.login(ADMIN).await;
    admin
        .users()
        .set_password(password_change(&member.name, "", NEW_PASSWORD))
        .await
        .unwrap();
    world.b.try_login("alice", NEW_PASSWORD).await.unwrap();
    // One's own needs the current one, an administrator's too.
    let own = admin
        .users()
        .set_password(password_change("users/me", "", NEW_PASSWORD))
        .await;
    assert_fails(own, Code::Unauthenticated, ErrorReason::LoginFailed);
}
