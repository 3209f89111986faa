//! Logging in, and calls without credentials.

use e2e::reason;
use rpc::auth::v1::{LoginWithPasswordRequest, RefreshTokenRequest, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::RunQueryRequest;
use rpc::settings::v1::ListSettingsRequest;
use tonic::Code;

use crate::worlds::shared;

#[tokio::test]
async fn calls_without_or_with_a_wrong_token_are_refused() {
    let world = &shared().await.world;
    let anonymous = world.anonymous();
    let missing = (Code::Unauthenticated, ErrorReason::CredentialsMissing);
    let settings = anonymous
        .settings()
        .list_settings(ListSettingsRequest::default())
        .await;
    assert_eq!(reason::of(&settings.unwrap_err()), missing);
    let query = anonymous.query().run_query(RunQueryRequest::default()).await;
    assert_eq!(reason::of(&query.unwrap_err()), missing);
    let who = anonymous.auth().who_am_i(WhoAmIRequest {}).await;
    assert_eq!(reason::of(&who.unwrap_err()), missing);

    let made_up = anonymous.with_token("not-a-token");
    let who = made_up.auth().who_am_i(WhoAmIRequest {}).await;
    reason::expect(who, Code::Unauthenticated, ErrorReason::TokenInvalid);
}

#[tokio::test]
async fn wrong_password_and_unknown_user_get_the_same_answer() {
    let world = &shared().await.world;
    let answer = async |username: &str, password: &str| {
        let request = LoginWithPasswordRequest {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let refused = world.anonymous().auth().login_with_password(request).await;
        let status = reason::expect(refused, Code::Unauthenticated, ErrorReason::LoginFailed);
        reason::text(&status)
    };
    let canary = "a wrong password, but somebody's";
    world.secrets().remember("a password that failed", canary);
    let known = answer(e2e::world::SUPERUSER, canary).await;
    let unknown = answer("nobody-of-that-name", canary).await;
    assert_eq!(without_date(&known), without_date(&unknown));
    assert!(!known.contains(canary));
}

/// Answers differ in the time they were sent.
fn without_date(text: &str) -> String {
    let Some((before, rest)) = text.split_once("\"date\"") else {
        return text.to_owned();
    };
    let rest = rest.split_once("GMT").map_or(rest, |(_, rest)| rest);
    format!("{before}{rest}")
}

#[tokio::test]
async fn refresh_token_works_once_and_a_second_use_ends_the_login_on_every_instance() {
    let world = &shared().await.world;
    let tokens = world
        .anonymous()
        .log_in(e2e::world::SUPERUSER, world.superuser_password())
        .await
        .unwrap();
    let refresh = async |api: usize, refresh_token: &str| {
        let client = e2e::Client::anonymous(&world.apis()[api].url());
        let refresh_token = refresh_token.to_owned();
        client
            .auth()
            .refresh_token(RefreshTokenRequest { refresh_token })
            .await
    };
    let second = refresh(0, &tokens.refresh_token).await.unwrap().into_inner();
    let second = second.tokens.unwrap();
    world.secrets().remember("a refresh token", &second.refresh_token);
    assert_ne!(second.refresh_token, tokens.refresh_token);

    let reused = refresh(1, &tokens.refresh_token).await;
    let status = reused.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{}", reason::text(&status));
    // Somebody has a copy: the login is over for both of them.
    let status = refresh(0, &second.refresh_token).await.unwrap_err();
    reason::expect::<()>(Err(status), Code::Unauthenticated, ErrorReason::TokenRevoked);
}
