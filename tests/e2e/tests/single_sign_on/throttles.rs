//! What nobody was given is refused when it comes too often, and what is right never.

use e2e::reason;
use rpc::errors::v1::ErrorReason;
use serde_json::json;
use tonic::Code;

use super::arrangement::{Returned, arrange, arrange_ann, begin, can_be_collected, poll, poll_once};

#[tokio::test]
async fn unknown_states_and_answers_are_throttled_and_whoever_brings_right_ones_logs_in() {
    let here = arrange_ann().await;
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    let mut returned = here.browse(0, &begun, "ann").await;
    assert_eq!(returned.answer("confirm").await.status, 200);
    poll(&client, &begun).await.unwrap();
    let unknown = returned
        .confirm_url()
        .replace("/oidc/confirm", "/oidc/callback/idp-0?state=x&code=y");

    // An answer to what was answered, and a state that there is not.
    assert_eq!(returned.answer("confirm").await.status, 403);
    assert_eq!(Returned::open(&unknown).await.page.status, 403);
    let database = here.world.config_database().database().connect().await;
    let counted = "UPDATE pgmoor.login_throttles SET attempts = 1000 WHERE key LIKE 'callback:%' OR key LIKE 'confirm:%'";
    assert_eq!(database.execute(counted, &[]).await.unwrap(), 2);
    for refused in [
        returned.answer("confirm").await,
        Returned::open(&unknown).await.page,
    ] {
        assert_eq!(refused.status, 429, "{refused:?}");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=15 * 60 + 1).contains(&wait), "{wait}");
    }

    here.log_in(0, "ann").await.unwrap();
}

#[tokio::test]
async fn logins_that_are_begun_and_polls_are_throttled_by_address() {
    let here = arrange(&[json!({ "ann": {} })], "", "auto_create = true").await;
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    assert!(!can_be_collected(&client, &begun).await);
    let database = here.world.config_database().database().connect().await;
    let counted = "UPDATE pgmoor.login_throttles SET attempts = 100000 WHERE key LIKE 'start-login:%' OR key LIKE 'poll-login:%'";
    assert_eq!(database.execute(counted, &[]).await.unwrap(), 2);
    let refused = [
        begin(&client, "idp-0").await.map(drop),
        poll_once(&client, &begun, "").await.map(drop),
    ];
    for refused in refused {
        reason::expect(refused, Code::ResourceExhausted, ErrorReason::LoginThrottled);
    }
}
