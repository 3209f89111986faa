//! Streams that go on while their clients never come back for another token.

use e2e::reason;
use harness::eventually;
use rpc::audit::v1::audit_service_client::AuditServiceClient;
use rpc::audit::v1::{WatchAuditRecordsRequest, WatchAuditRecordsResponse};
use rpc::auth::v1::TokenPair;
use rpc::errors::v1::ErrorReason;
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Request, Status, Streaming};

use super::arrangement::{Arrangement, DEADLINE, arrange};

/// What makes everybody of a group an administrator, who may watch the audit trail.
const ADMINISTRATORS: &str = "auto_create = true\ngroup_rules = [{ value = \"dba\", administrator = true }]";

/// A stream that nothing but a change of its caller's standing ends.
async fn watch(here: &Arrangement, tokens: &TokenPair) -> Streaming<WatchAuditRecordsResponse> {
    let client = here.world.anonymous();
    let mut request = Request::new(WatchAuditRecordsRequest::default());
    let token = format!("Bearer {}", tokens.access_token);
    request
        .metadata_mut()
        .insert("authorization", token.parse().unwrap());
    let answer = AuditServiceClient::new(client.channel())
        .watch_audit_records(request)
        .await;
    answer.unwrap().into_inner()
}

/// With what the stream ends.
async fn end_of(mut stream: Streaming<WatchAuditRecordsResponse>) -> Result<(), Status> {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    };
    timeout(DEADLINE, end).await.expect("the stream goes on")
}

#[tokio::test]
async fn stream_ends_when_the_provider_says_no_though_its_client_never_refreshes() {
    let account = |name: &str| json!({ "preferred_username": name, "groups": ["dba"] });
    let here = arrange(
        &[json!({ "ann": account("ann"), "bob": account("bob"), "cyd": account("cyd") })],
        "check_interval = \"1s\"",
        ADMINISTRATORS,
    )
    .await;
    let provider = &here.providers[0];
    let (ann, bob, cyd) = (
        here.log_in(0, "ann").await.unwrap(),
        here.log_in(0, "bob").await.unwrap(),
        here.log_in(0, "cyd").await.unwrap(),
    );
    let (anns, bobs) = (watch(&here, &ann).await, watch(&here, &bob).await);
    let mut cyds = watch(&here, &cyd).await;

    // Removed altogether, and taken out of the group.
    provider.control(json!({ "forget": ["ann"] })).await;
    reason::expect(
        end_of(anns).await,
        Code::Unauthenticated,
        ErrorReason::TokenRevoked,
    );
    let refreshed = here.refresh(&ann).await;
    reason::expect(refreshed, Code::Unauthenticated, ErrorReason::TokenRevoked);
    let staff = json!({ "preferred_username": "bob", "groups": ["staff"] });
    provider.control(json!({ "accounts": { "bob": staff } })).await;
    reason::expect(
        end_of(bobs).await,
        Code::PermissionDenied,
        ErrorReason::AccessRevoked,
    );
    assert!(!here.who(&bob).await.administrator);

    // Who stays is asked after as well, and goes on: records of the calls above and below.
    let before = provider.control(json!({})).await["requests"]["/token"].as_u64();
    eventually(DEADLINE, "the provider is asked again", async || {
        let now = provider.control(json!({})).await["requests"]["/token"].as_u64();
        if now > before {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    let message = timeout(DEADLINE, cyds.message());
    assert!(message.await.expect("a record comes").unwrap().is_some());
}

#[tokio::test]
async fn stream_whose_provider_cannot_be_asked_ends_when_its_login_is_too_old() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann", "groups": ["dba"] } })],
        "check_interval = \"1s\"",
        // Without offline_access there is no refresh token.
        &format!("{ADMINISTRATORS}\nscopes = [\"profile\"]"),
    )
    .await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    let stream = watch(&here, &tokens).await;
    let database = here.world.config_database().database().connect().await;
    let aged = "UPDATE pgmoor.logins SET create_time = create_time - interval '13 hours' WHERE provider_token IS NULL \
                AND provider IS NOT NULL";
    assert_eq!(database.execute(aged, &[]).await.unwrap(), 1);
    reason::expect(
        end_of(stream).await,
        Code::Unauthenticated,
        ErrorReason::TokenRevoked,
    );
}
