//! For how long a provider's word is good, and for what.

use e2e::reason;
use rpc::auth::v1::{CreateApiTokenRequest, TokenPair, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use serde_json::json;
use tokio::sync::Mutex;
use tonic::{Code, Status};

use super::arrangement::{Arrangement, DEADLINE, arrange};

/// Refreshes until it is refused.
async fn refused(here: &Arrangement, tokens: TokenPair) -> Status {
    let last = Mutex::new(tokens);
    harness::eventually(DEADLINE, "the login ends", async || {
        let mut last = last.lock().await;
        match here.refresh(&last).await {
            Ok(next) => {
                *last = next;
                Err("it goes on".to_owned())
            }
            Err(status) => Ok(status),
        }
    })
    .await
}

/// What a call with the token answers.
async fn call(here: &Arrangement, token: &str) -> Result<(), Status> {
    let client = here.world.anonymous().with_token(token);
    client.auth().who_am_i(WhoAmIRequest {}).await.map(drop)
}

#[tokio::test]
async fn api_tokens_stop_when_the_provider_says_no_and_work_again_after_the_next_login() {
    let account = json!({ "preferred_username": "ann" });
    let here = arrange(
        &[json!({ "ann": account })],
        "check_interval = \"1s\"",
        "auto_create = true",
    )
    .await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    let client = here.world.anonymous().with_token(&tokens.access_token);
    let request = CreateApiTokenRequest {
        display_name: "job".to_owned(),
        ..CreateApiTokenRequest::default()
    };
    let made = client.auth().create_api_token(request).await.unwrap();
    let token = made.into_inner().token;
    call(&here, &token).await.unwrap();
    // A login of a colleague, who stays.
    here.providers[0]
        .control(json!({ "accounts": { "bob": { "preferred_username": "bob" } } }))
        .await;

    here.providers[0].control(json!({ "forget": ["ann"] })).await;
    let ended = refused(&here, tokens).await;
    reason::expect::<()>(
        Err(ended),
        Code::Unauthenticated,
        ErrorReason::LoginEndedByProvider,
    );
    let refused = harness::eventually(DEADLINE, "the token stops", async || {
        match call(&here, &token).await {
            Ok(()) => Err("it works".to_owned()),
            Err(status) => Ok(status),
        }
    })
    .await;
    reason::expect::<()>(
        Err(refused),
        Code::Unauthenticated,
        ErrorReason::ApiTokenNotVouched,
    );

    here.providers[0]
        .control(json!({ "accounts": { "ann": account } }))
        .await;
    here.log_in(0, "ann").await.unwrap();
    harness::eventually(DEADLINE, "the token works again", async || {
        call(&here, &token).await
    })
    .await;

    // Nobody vouches for her for too long.
    let database = here.world.config_database().database().connect().await;
    let aged = "UPDATE pgmoor.users SET vouch_expire_time = clock_timestamp() WHERE username = 'ann'";
    database.execute(aged, &[]).await.unwrap();
    harness::eventually(DEADLINE, "the token stops", async || {
        call(&here, &token).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn login_whose_provider_cannot_be_asked_again_ends_when_it_is_too_old() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "check_interval = \"1s\"",
        // Without offline_access there is no refresh token.
        "auto_create = true\nscopes = [\"profile\"]",
    )
    .await;
    let tokens = here.log_in(0, "ann").await.unwrap();
    let tokens = here.refresh(&tokens).await.unwrap();
    let database = here.world.config_database().database().connect().await;
    let aged = "UPDATE pgmoor.logins SET create_time = create_time - interval '13 hours' WHERE provider_token IS NULL \
                AND provider IS NOT NULL";
    assert_eq!(database.execute(aged, &[]).await.unwrap(), 1);
    reason::expect(
        here.refresh(&tokens).await,
        Code::Unauthenticated,
        ErrorReason::LoginReauthenticationRequired,
    );
    reason::expect(
        here.refresh(&tokens).await,
        Code::Unauthenticated,
        ErrorReason::TokenRevoked,
    );
}

#[tokio::test]
async fn token_that_a_provider_replaced_is_not_lost_where_the_rest_of_the_answer_fails() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "check_interval = \"1s\"",
        "auto_create = true",
    )
    .await;
    let provider = &here.providers[0];
    provider.control(json!({ "rotateTokens": true })).await;
    let last = Mutex::new(here.log_in(0, "ann").await.unwrap());
    let refresh_until = async |what: &str, done: &dyn Fn(&serde_json::Value) -> bool| {
        harness::eventually(DEADLINE, what, async || {
            let mut last = last.lock().await;
            *last = here.refresh(&last).await.unwrap();
            done(&provider.control(json!({})).await["requests"])
        })
        .await;
    };
    // The provider gives another refresh token and then fails: it counts as away, and a second use of the first token would be
    // theft to it.
    provider
        .control(json!({ "failUserinfo": true, "resetRequests": true }))
        .await;
    refresh_until("the provider fails twice", &|requests| {
        requests["/me"].as_u64() >= Some(2)
    })
    .await;
    provider
        .control(json!({ "failUserinfo": false, "resetRequests": true }))
        .await;
    refresh_until("the provider is asked again", &|requests| {
        requests["/me"].as_u64() >= Some(2)
    })
    .await;
    here.who(&*last.lock().await).await;
}
