//! Clients that go away while a provider is asked: what it answers is kept all the same.

use std::time::Duration;

use e2e::chromium::Chromium;
use e2e::provider::OpenIdProvider;
use rpc::auth::v1::start_login_request::Flow;
use rpc::auth::v1::{DeviceFlow, RefreshTokenRequest, StartLoginRequest};
use serde_json::json;
use tokio::task::JoinSet;

use super::arrangement::{DEADLINE, arrange, arrange_ann, begin, begin_with, poll, poll_once};

/// Several rounds, should the provider be taken for one that is away.
const ROUNDS: Duration = Duration::from_secs(180);

/// Runs a call until the provider is asked for tokens, and goes away before it answers.
async fn leave<F>(provider: &OpenIdProvider, call: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let order = json!({ "holdTokens": true, "resetRequests": true });
    provider.control(order).await;
    let mut calls = JoinSet::new();
    calls.spawn(call);
    harness::eventually(DEADLINE, "the provider is asked", async || {
        let asked = provider.control(json!({})).await;
        asked["requests"]["/token"].as_u64() >= Some(1)
    })
    .await;
    calls.shutdown().await;
    provider.control(json!({ "holdTokens": false })).await;
}

#[tokio::test]
async fn refresh_whose_client_goes_away_loses_nothing_that_the_provider_gave() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "check_interval = \"10s\"",
        "auto_create = true",
    )
    .await;
    let provider = &here.providers[0];
    // A second use of a refresh token is theft to it.
    provider.control(json!({ "rotateTokens": true })).await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    let request = RefreshTokenRequest {
        refresh_token: tokens.refresh_token.clone(),
    };
    let stored = here.world.config_database().database().connect().await;
    let sql = "SELECT sha256(provider_token), \
               provider_check_time < clock_timestamp() - interval '10 seconds' FROM pgmoor.logins WHERE provider IS NOT NULL";
    let login = async || {
        let row = stored.query_one(sql, &[]).await.unwrap();
        let token: Vec<u8> = row.get(0);
        (token, row.get::<_, bool>(1))
    };
    let (before, _) = login().await;
    harness::eventually(ROUNDS, "what the provider gave is kept", async || {
        let (token, due) = login().await;
        if token != before {
            return true;
        }
        if due {
            let (client, request) = (here.api(0), request.clone());
            leave(provider, async move {
                drop(client.auth().refresh_token(request).await);
            })
            .await;
        }
        false
    })
    .await;

    // Our own refresh token was not used, and the provider vouches on.
    harness::eventually(ROUNDS, "the provider may be asked again", async || {
        login().await.1
    })
    .await;
    let answer = here.api(1).auth().refresh_token(request).await.unwrap();
    here.who(&answer.into_inner().tokens.unwrap()).await;
}

#[tokio::test]
async fn login_on_a_device_whose_client_goes_away_is_collected_later() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "",
        "auto_create = true\ndevice_flow = true",
    )
    .await;
    let client = here.world.anonymous();
    let begun = begin_with(&client, "idp-0", Some(Flow::Device(DeviceFlow {})))
        .await
        .unwrap();
    let chromium = Chromium::start().await;
    chromium.open(&begun.started.verification_uri).await;
    chromium
        .fill("input[name=user_code]", &begun.started.user_code)
        .await;
    chromium.click("[type=submit]").await;
    chromium.element_gone("input[type=text][name=user_code]").await;
    chromium.click("[type=submit]").await;
    chromium.fill("input[name=login]", "ann").await;
    chromium.fill("input[name=password]", "anything").await;
    chromium.click("button[type=submit]").await;
    chromium.element_gone("input[name=login]").await;
    chromium.click("button[type=submit]").await;
    chromium.element_gone("button[type=submit]").await;

    // The device's code can be exchanged now, once.
    let stored = here.world.config_database().database().connect().await;
    let sql = "SELECT user_id IS NOT NULL, next_poll_time <= clock_timestamp() FROM pgmoor.login_attempts";
    harness::eventually(ROUNDS, "the login is complete", async || {
        let row = stored.query_one(sql, &[]).await.unwrap();
        if row.get(0) {
            return true;
        }
        if row.get(1) {
            let (api, begun) = (here.api(0), begun.clone());
            leave(&here.providers[0], async move {
                drop(poll_once(&api, &begun, "").await);
            })
            .await;
        }
        false
    })
    .await;
    let tokens = poll(&here.api(1), &begun).await.unwrap();
    assert_eq!(here.who(&tokens).await.username, "ann");
}

#[tokio::test]
async fn beginning_whose_client_goes_away_leaves_nothing_that_could_be_gone_on_with() {
    let here = arrange_ann().await;
    // Its discovery document is what it is asked for first.
    let provider = &here.providers[0];
    provider.freeze();
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let client = here.api(0);
        calls.spawn(async move {
            let request = StartLoginRequest {
                provider: "idp-0".to_owned(),
                code_challenge: "A".repeat(43),
                flow: None,
            };
            client.auth().start_login(request).await.map(drop)
        });
    }
    let stored = here.world.config_database().database().connect().await;
    let count = async |sql: &str| stored.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    harness::eventually(DEADLINE, "the calls are counted", async || {
        let sql = "SELECT coalesce(sum(attempts), 0)::int8 FROM pgmoor.login_throttles WHERE key LIKE 'start-login:%'";
        count(sql).await == 3
    })
    .await;
    calls.shutdown().await;
    provider.thaw();
    // Who comes next is not kept waiting by those who left.
    let client = here.api(0);
    let begun = harness::eventually(DEADLINE, "logins begin again", async || {
        begin(&client, "idp-0").await
    })
    .await;
    assert_eq!(count("SELECT count(*) FROM pgmoor.login_attempts").await, 1);
    here.browse_and_confirm(0, &begun, "ann").await;
    poll(&client, &begun).await.unwrap();
}
