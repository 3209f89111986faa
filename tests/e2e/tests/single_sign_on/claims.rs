//! What becomes of what a provider says: users, administrators, refusals.

use e2e::reason;
use rpc::access::v1::{ListGroupMembersRequest, ListGroupsRequest};
use rpc::auth::v1::LogoutRequest;
use rpc::errors::v1::ErrorReason;
use rpc::user::v1::{CreateUserRequest, User};
use serde_json::json;
use tonic::Code;

use super::arrangement::{Arrangement, arrange};

#[tokio::test]
async fn names_that_cannot_be_or_are_taken_make_no_user() {
    let long = "x".repeat(10_000);
    let here = arrange(
        &[json!({
            "inert": { "preferred_username": "$(touch${IFS}x)" },
            "dots": { "preferred_username": ".." },
            "space": { "preferred_username": "$(touch x)" },
            "empty": { "preferred_username": "" },
            "none": {},
            "number": { "preferred_username": 7 },
            "long": { "preferred_username": long },
            "admin": { "preferred_username": "ADMIN", "groups": [] },
        })],
        "",
        "auto_create = true",
    )
    .await;
    for (login, name) in [("inert", "$(touch${IFS}x)"), ("dots", "..")] {
        let tokens = here.log_in(0, login).await.unwrap();
        assert_eq!(here.who(&tokens).await.username, name);
    }
    for login in ["space", "empty", "none", "long"] {
        let refused = here.log_in(0, login).await;
        reason::expect(
            refused,
            Code::FailedPrecondition,
            ErrorReason::LoginUsernameInvalid,
        );
    }
    // A claim of the wrong kind is no name, or no token: nobody is let in.
    let refused = here.log_in(0, "number").await.unwrap_err();
    assert!(
        [
            Some(ErrorReason::LoginUsernameInvalid),
            Some(ErrorReason::LoginTokenInvalid)
        ]
        .contains(&rpc::error::reason(&refused)),
        "{refused:?}"
    );
    let taken = here.log_in(0, "admin").await;
    reason::expect(taken, Code::AlreadyExists, ErrorReason::LoginUsernameTaken);
}

#[tokio::test]
async fn groups_make_an_administrator_for_as_long_as_the_provider_says_them() {
    let here = arrange(
        &[json!({
            "ann": { "preferred_username": "ann", "groups": ["dba", "staff"] },
            "many": { "preferred_username": "many", "_claim_names": { "groups": "src1" } },
            "odd": {
                "preferred_username": "odd",
                "groups": ["DBA", " dba", "dba\0", "x".repeat(10_000), "..", "$(touch x)", "", 7, ["dba"]],
            },
        })],
        "check_interval = \"1s\"",
        "auto_create = true\ngroup_rules = [{ value = \"dba\", administrator = true, group = \"operators\" }]",
    )
    .await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    assert!(here.who(&tokens).await.administrator);
    assert_eq!(
        kept_groups(&here).await,
        [
            ("dba".to_owned(), Some("operators".to_owned())),
            ("staff".to_owned(), None)
        ]
    );

    assert_eq!(members_of_operators(&here).await, ["ann"]);

    let change = json!({ "accounts": { "ann": { "preferred_username": "ann", "groups": ["staff"] } } });
    here.providers[0].control(change).await;
    let last = tokio::sync::Mutex::new(tokens);
    harness::eventually(
        super::arrangement::DEADLINE,
        "the refresh follows the groups",
        async || {
            let mut last = last.lock().await;
            *last = here.refresh(&last).await.unwrap();
            !here.who(&last).await.administrator
        },
    )
    .await;

    assert!(members_of_operators(&here).await.is_empty());

    let overage = here.log_in(0, "many").await;
    reason::expect(overage, Code::FailedPrecondition, ErrorReason::LoginGroupsOverage);

    // What only looks like a group that gives something gives nothing.
    let tokens = here.log_in(0, "odd").await.unwrap();
    assert!(!here.who(&tokens).await.administrator);
    assert!(members_of_operators(&here).await.is_empty());
    let odd = [" dba", "$(touch x)", "..", "DBA", "staff"];
    let mut kept: Vec<String> = kept_groups(&here)
        .await
        .into_iter()
        .map(|(value, _)| value)
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, odd);
}

/// What is kept of the groups that providers say, and which groups they give.
async fn kept_groups(here: &Arrangement) -> Vec<(String, Option<String>)> {
    let stored = here.world.config_database().database().connect().await;
    let groups = "SELECT group_value, group_name FROM pgmoor.identity_groups ORDER BY 1";
    let groups = stored.query(groups, &[]).await.unwrap();
    groups.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Who is in the group that a rule puts people into, as an administrator sees it.
async fn members_of_operators(here: &Arrangement) -> Vec<String> {
    let administrator = here.world.superuser().await;
    let groups = administrator
        .a()
        .groups()
        .list_groups(ListGroupsRequest::default())
        .await;
    let groups = groups.unwrap().into_inner().groups;
    let group = groups.into_iter().find(|group| group.display_name == "operators");
    let request = ListGroupMembersRequest {
        parent: group.expect("the group was made").name,
        ..ListGroupMembersRequest::default()
    };
    let members = administrator.a().groups().list_group_members(request).await;
    let members = members.unwrap().into_inner().members;
    members.into_iter().map(|member| member.username).collect()
}

#[tokio::test]
async fn only_the_invited_and_whom_the_policy_lets_in_log_in() {
    let here = arrange(
        &[json!({
            "ann": { "preferred_username": "a", "department": "data", "email": "Ann@example.com", "email_verified": true },
            "bob": { "preferred_username": "b", "department": "data", "email": "ann@example.com", "email_verified": false },
            "eve": { "preferred_username": "e", "department": "data", "email": "ann@evil.com", "email_verified": true },
            "sam": { "preferred_username": "s", "department": "sales", "email": "sam@example.com", "email_verified": true },
        })],
        "",
        "link_email_domains = [\"example.com\"]\nrequired_claims = { department = [\"data\", \"ops\"] }",
    )
    .await;
    let root = here.world.superuser().await;
    let invited = CreateUserRequest {
        user: Some(User {
            username: "annie".to_owned(),
            email: "ann@Example.com".to_owned(),
            ..User::default()
        }),
        password: String::new(),
    };
    let invited = root
        .balanced
        .users()
        .create_user(invited)
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    assert_eq!(invited.email, "ann@example.com");
    for uninvited in ["bob", "eve"] {
        let refused = here.log_in(0, uninvited).await;
        reason::expect(refused, Code::PermissionDenied, ErrorReason::LoginNotInvited);
    }
    let refused = here.log_in(0, "sam").await;
    reason::expect(refused, Code::PermissionDenied, ErrorReason::LoginPolicyDenied);
    let tokens = here.log_in(0, "ann").await.unwrap();
    assert_eq!(here.who(&tokens).await.user, invited.name);
}

#[tokio::test]
async fn login_ends_when_its_provider_ends_it_and_logout_ends_it_there() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" }, "bob": { "preferred_username": "bob" } })],
        "check_interval = \"1s\"",
        "auto_create = true",
    )
    .await;
    let ann = here.log_in(0, "ann").await.unwrap();
    let bob = here.log_in(0, "bob").await.unwrap();
    let ann = here.refresh(&ann).await.unwrap();

    let client = here.world.anonymous().with_token(&bob.access_token);
    here.providers[0].control(json!({ "resetRequests": true })).await;
    client.auth().logout(LogoutRequest {}).await.unwrap();
    let asked = here.providers[0].control(json!({})).await;
    assert_eq!(asked["requests"]["/token/revocation"], json!(1), "{asked}");

    here.providers[0].control(json!({ "forget": ["ann"] })).await;
    let last = tokio::sync::Mutex::new(ann);
    let ended = harness::eventually(
        super::arrangement::DEADLINE,
        "the provider ends the login",
        async || {
            let mut last = last.lock().await;
            match here.refresh(&last).await {
                Ok(next) => {
                    *last = next;
                    Err("it goes on".to_owned())
                }
                Err(status) => Ok(status),
            }
        },
    )
    .await;
    reason::expect::<()>(
        Err(ended),
        Code::Unauthenticated,
        ErrorReason::LoginEndedByProvider,
    );
    let last = last.lock().await.clone();
    reason::expect(
        here.refresh(&last).await,
        Code::Unauthenticated,
        ErrorReason::TokenRevoked,
    );
}
