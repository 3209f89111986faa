//! What a login with a provider leaves in the audit trail.

use rpc::audit::v1::audit_service_client::AuditServiceClient;
use rpc::audit::v1::{AuditFilter, AuditRecord, ListAuditRecordsRequest};
use rpc::auth::v1::WhoAmIRequest;
use serde_json::json;
use tonic::Request;

use super::arrangement::{Arrangement, DEADLINE, arrange, begin};

/// The records, oldest first, as soon as there is one of each of these methods.
async fn records(here: &Arrangement, methods: &[&str]) -> Vec<AuditRecord> {
    let root = here.world.superuser().await;
    let reader = &root.balanced;
    harness::eventually(DEADLINE, "the records are written", async || {
        let mut request = Request::new(ListAuditRecordsRequest {
            filter: Some(AuditFilter::default()),
            page_size: 1000,
            page_token: String::new(),
        });
        let token = format!("Bearer {}", reader.token().unwrap());
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
        let mut client = AuditServiceClient::new(reader.channel());
        let page = client.list_audit_records(request).await.unwrap().into_inner();
        let mut records = page.records;
        records.reverse();
        let missing: Vec<_> = methods
            .iter()
            .filter(|method| records.iter().all(|record| record.method != **method))
            .collect();
        if missing.is_empty() {
            Ok(records)
        } else {
            Err(format!("{missing:?} of {records:?}"))
        }
    })
    .await
}

fn of<'a>(records: &'a [AuditRecord], method: &'a str) -> impl Iterator<Item = &'a AuditRecord> {
    records.iter().filter(move |record| record.method == method)
}

#[tokio::test]
async fn logins_their_failures_and_what_claims_change_are_recorded_with_their_provider() {
    let here = arrange(
        &[json!({
            "ann": { "preferred_username": "ann", "groups": ["dba"], "department": "data" },
            "sam": { "preferred_username": "sam", "department": "sales" },
        })],
        "",
        "auto_create = true\nrequired_claims = { department = [\"data\"] }\n\
         group_rules = [{ value = \"dba\", administrator = true, group = \"operators\" }]",
    )
    .await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    let user = here.who(&tokens).await.user;
    here.log_in(0, "sam").await.unwrap_err();
    // Somebody declines.
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    here.browse(0, &begun, "ann").await.answer("decline").await;
    // Ann leaves the group.
    let change = json!({ "accounts": { "ann": { "preferred_username": "ann", "department": "data" } } });
    here.providers[0].control(change).await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    // A call with the token of that login, refused: what is refused is always recorded.
    let caller = here.world.anonymous().with_token(&tokens.access_token);
    caller.auth().who_am_i(WhoAmIRequest {}).await.unwrap();
    harness::eventually(DEADLINE, "nobody is an administrator any more", async || {
        let list = rpc::user::v1::ListUsersRequest::default();
        caller.users().list_users(list).await.is_err()
    })
    .await;

    let records = records(
        &here,
        &[
            "oidc/callback",
            "oidc/confirm",
            "oidc/create-user",
            "oidc/join-groups",
            "oidc/leave-groups",
            "oidc/make-administrator",
            "oidc/end-administrator",
            "pgmoor.user.v1.UserService/ListUsers",
            "pgmoor.auth.v1.AuthService/PollLogin",
            "pgmoor.auth.v1.AuthService/LoginWithPassword",
        ],
    )
    .await;
    for record in records.iter().filter(|record| record.method.starts_with("oidc/")) {
        assert_eq!(record.provider, "idp-0", "{record:?}");
    }
    for method in ["oidc/create-user", "oidc/join-groups", "oidc/make-administrator"] {
        let record = of(&records, method).next().unwrap();
        assert!(record.resources.contains(&user), "{record:?}");
    }
    let joined = of(&records, "oidc/join-groups").next().unwrap();
    assert!(
        joined.resources.iter().any(|name| name.starts_with("groups/")),
        "{joined:?}"
    );
    let failed = of(&records, "oidc/callback").find(|record| record.outcome != "OK");
    let failed = failed.unwrap();
    assert_eq!(
        (
            failed.outcome.as_str(),
            failed.reason.as_str(),
            failed.address.as_str()
        ),
        ("PERMISSION_DENIED", "LOGIN_POLICY_DENIED", "127.0.0.1"),
        "{failed:?}"
    );
    let reasons: Vec<&str> = of(&records, "oidc/confirm")
        .map(|record| record.reason.as_str())
        .collect();
    assert_eq!(reasons, ["", "LOGIN_DECLINED", ""]);
    // Calls say which provider their login was begun with; those of a password none.
    let refused = of(&records, "pgmoor.user.v1.UserService/ListUsers")
        .next()
        .unwrap();
    assert_eq!(refused.provider, "idp-0", "{refused:?}");
    let polled = of(&records, "pgmoor.auth.v1.AuthService/PollLogin")
        .next()
        .unwrap();
    assert_eq!(polled.provider, "idp-0", "{polled:?}");
    let password = of(&records, "pgmoor.auth.v1.AuthService/LoginWithPassword").next();
    assert_eq!(password.unwrap().provider, "");
}
