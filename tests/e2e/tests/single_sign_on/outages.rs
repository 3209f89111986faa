//! Providers that rotate keys, have other clocks, are slow or away.

use std::time::Duration;

use e2e::reason;
use rpc::auth::v1::RefreshTokenRequest;
use rpc::errors::v1::ErrorReason;
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use super::arrangement::{arrange, arrange_ann, begin};

#[tokio::test]
async fn provider_that_rotates_its_keys_or_whose_clock_is_a_little_off_is_believed() {
    let here = arrange_ann().await;
    let provider = &here.providers[0];
    here.log_in(0, "ann").await.unwrap();
    // Both instances know the old keys.
    here.log_in(0, "ann").await.unwrap();
    provider
        .control(json!({ "rotateKey": true, "resetRequests": true }))
        .await;
    // New ones are not asked for more often than every 10 s.
    for _ in 0..4 {
        harness::eventually(
            super::arrangement::DEADLINE,
            "an instance knows the new key",
            async || here.log_in(0, "ann").await,
        )
        .await;
    }
    let asked = provider.control(json!({})).await;
    assert!(
        asked["requests"]["/jwks"].as_u64().unwrap() <= 2,
        "once for each instance: {asked}"
    );

    for seconds in [-50, 50] {
        provider.control(json!({ "skewSeconds": seconds })).await;
        // The other instance may have had no reason yet to ask for the new key.
        harness::eventually(
            super::arrangement::DEADLINE,
            "a clock that is a little off is believed",
            async || here.log_in(0, "ann").await,
        )
        .await;
    }
    provider.control(json!({ "skewSeconds": 300 })).await;
    let refused = here.log_in(0, "ann").await;
    reason::expect(refused, Code::Unauthenticated, ErrorReason::LoginTokenInvalid);
}

#[tokio::test]
async fn provider_that_is_away_stops_new_logins_at_once_and_nobody_who_is_logged_in() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "check_interval = \"1s\"",
        "auto_create = true",
    )
    .await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    let begun = begin(&here.api(0), "idp-0").await.unwrap();
    let back = here.providers[0]
        .fill_forms(&begun.started.authorization_url, "ann")
        .await;
    here.providers[0].freeze();

    let asked = Instant::now();
    let answer = e2e::http::request("GET", &back, "", None).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let failed = super::arrangement::poll(&here.api(1), &begun).await;
    reason::expect(failed, Code::Unavailable, ErrorReason::LoginProviderUnavailable);
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());

    here.who(&tokens).await;
    let client = here.world.anonymous();
    let stored = here.world.config_database().database().connect().await;
    let last = tokio::sync::Mutex::new(tokens);
    harness::eventually(
        super::arrangement::DEADLINE,
        "a refresh goes on though the provider was asked in vain",
        async || {
            let mut last = last.lock().await;
            let refresh_token = last.refresh_token.clone();
            let request = RefreshTokenRequest { refresh_token };
            let refreshed = client.auth().refresh_token(request).await.unwrap();
            *last = refreshed.into_inner().tokens.unwrap();
            let sql = "SELECT bool_or(provider_check_time <> provider_confirm_time) FROM pgmoor.logins";
            let asked: Option<bool> = stored.query_one(sql, &[]).await.unwrap().get(0);
            asked == Some(true)
        },
    )
    .await;
    here.who(&*last.lock().await).await;
    here.providers[0].thaw();
    harness::eventually(
        super::arrangement::DEADLINE,
        "new logins begin again",
        async || here.log_in(0, "ann").await,
    )
    .await;
}

#[tokio::test]
async fn provider_that_was_never_there_does_not_keep_pgmoor_from_serving() {
    let mut here = arrange(&[json!({})], "", "").await;
    here.providers.clear();
    let client = here.world.anonymous();
    let asked = Instant::now();
    for _ in 0..20 {
        let refused = begin(&client, "idp-0").await;
        reason::expect(
            refused.map(drop),
            Code::Unavailable,
            ErrorReason::LoginProviderUnavailable,
        );
    }
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    here.world.superuser().await;
}

#[tokio::test]
async fn login_whose_provider_is_away_for_too_long_waits_for_it_and_goes_on() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "check_interval = \"1s\"\nunavailable_grace = \"2s\"",
        "auto_create = true",
    )
    .await;
    let tokens = tokio::sync::Mutex::new(here.log_in(0, "ann").await.unwrap());
    let client = here.world.anonymous();
    let refresh = async || {
        let mut tokens = tokens.lock().await;
        let request = RefreshTokenRequest {
            refresh_token: tokens.refresh_token.clone(),
        };
        let answer = client.auth().refresh_token(request).await?;
        *tokens = answer.into_inner().tokens.unwrap();
        Ok::<_, tonic::Status>(())
    };
    here.providers[0].freeze();
    let refused =
        harness::eventually(
            super::arrangement::DEADLINE,
            "the grace is over",
            async || match refresh().await {
                Ok(()) => Err("it goes on".to_owned()),
                Err(status) => Ok(status),
            },
        )
        .await;
    reason::expect::<()>(
        Err(refused),
        Code::Unavailable,
        ErrorReason::LoginProviderUnavailable,
    );
    // Trying again at once is no way around it.
    let again = refresh().await;
    reason::expect(again, Code::Unavailable, ErrorReason::LoginProviderUnavailable);
    here.providers[0].thaw();
    // The refresh token was not used up.
    harness::eventually(super::arrangement::DEADLINE, "the login goes on", async || {
        refresh().await
    })
    .await;
}
