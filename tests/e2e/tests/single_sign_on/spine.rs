//! From the first call to the tokens, with a browser.

use e2e::chromium::Chromium;
use e2e::reason;
use rpc::auth::v1::start_login_request::Flow;
use rpc::auth::v1::{
    BrowserFlow, DeviceFlow, GetLoginOptionsRequest, ListLoginsRequest, RevokeLoginRequest, WhoAmIRequest,
};
use rpc::errors::v1::ErrorReason;
use serde_json::json;
use tonic::Code;

use super::arrangement::{
    Arrangement, Begun, arrange, arrange_ann, begin, begin_with, can_be_collected, poll, poll_once,
};

#[tokio::test]
async fn person_logs_in_with_a_browser_whose_return_lands_on_the_other_instance() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann", "name": "Ann Example" } })],
        "",
        "auto_create = true",
    )
    .await;
    let (world, client) = (&here.world, here.world.anonymous());
    let options = client.auth().get_login_options(GetLoginOptionsRequest {}).await;
    let options = options.unwrap().into_inner().providers;
    assert_eq!(options.len(), 1);
    assert_eq!(
        (options[0].id.as_str(), options[0].display_name.as_str()),
        ("idp-0", "Provider 0")
    );

    // Straight to the first instance, so that the log of the balancer says who served the browser.
    let (first, second) = (here.api(0), here.api(1));
    let begun = begin(&first, "idp-0").await.unwrap();
    // The balancer goes round: one more request where the next one would go to the first instance.
    let served = |log: &str| {
        let line = log
            .lines()
            .rfind(|line| line.contains("/healthz"))
            .unwrap_or_default()
            .to_owned();
        let address = line.split("upstream=").nth(1).unwrap_or_default();
        address.split(' ').next().unwrap_or_default().to_owned()
    };
    let http = world.http_urls();
    let first_http = http[0].trim_start_matches("http://").to_owned();
    let mut turn = String::new();
    for _ in 0..4 {
        let url = format!("http://127.0.0.1:{}/healthz", here.external_port);
        assert_eq!(e2e::http::request("GET", &url, "", None).await.status, 200);
        turn = harness::eventually(super::arrangement::DEADLINE, "the balancer logs", async || {
            let served = served(&world.nginx().access_log_text());
            if served.is_empty() {
                Err("no line".to_owned())
            } else {
                Ok(served)
            }
        })
        .await;
        if turn == first_http {
            break;
        }
    }
    assert_eq!(turn, first_http, "the balancer never asks the first instance");

    let chromium = Chromium::start().await;
    chromium.open(&begun.started.authorization_url).await;
    chromium.fill("input[name=login]", "ann").await;
    chromium.fill("input[name=password]", "anything").await;
    chromium.click("button[type=submit]").await;
    // Consent.
    chromium.element_gone("input[name=login]").await;
    chromium.click("button[type=submit]").await;
    let shown = chromium.text("#code").await;
    assert_eq!(shown, begun.started.confirmation_code);
    assert_eq!(chromium.text("#user").await, "ann");
    assert_eq!(chromium.text("#address").await, "127.0.0.1");
    assert!(chromium.text("#client").await.contains("tonic"));
    // Coming back is not enough.
    assert!(
        !can_be_collected(&first, &begun).await,
        "the login is collected before anybody confirmed it"
    );
    chromium.click("#confirm").await;
    assert!(chromium.text("#done").await.contains("Your terminal goes on"));

    let tokens = poll(&first, &begun).await.unwrap();
    let who = here.who(&tokens).await;
    assert_eq!(
        (
            who.username.as_str(),
            who.display_name.as_str(),
            who.administrator
        ),
        ("ann", "Ann Example", false)
    );
    let log = world.nginx().access_log_text();
    let callback = log
        .lines()
        .find(|line| line.contains("/oidc/callback/idp-0"))
        .unwrap();
    println!("StartLogin            served by api-0 {}", world.apis()[0].url());
    println!("browser, provider     {}", here.providers[0].issuer());
    println!("GET /oidc/callback    {callback}");
    println!("PollLogin             served by api-0 {}", world.apis()[0].url());
    println!("api-0 HTTP {}, api-1 HTTP {}", http[0], http[1]);
    assert!(
        callback.contains(&format!("upstream={}", http[1].trim_start_matches("http://"))),
        "{callback}"
    );
    assert!(!log.contains("code="), "a code is in the balancer's log");

    // Collected once; the other instance says the same.
    for client in [&first, &second] {
        reason::expect(
            poll(client, &begun).await,
            Code::NotFound,
            ErrorReason::LoginUnknown,
        );
    }
}

#[tokio::test]
async fn browser_brings_the_code_to_the_client_on_its_loopback_and_nowhere_else() {
    let here = arrange_ann().await;
    let client = here.world.anonymous();
    let flow = |uri: &str| {
        Some(Flow::Browser(BrowserFlow {
            redirect_uri: uri.to_owned(),
        }))
    };
    for elsewhere in [
        "https://evil.example/",
        "http://evil.example:8000/",
        "http://127.0.0.1:8000@evil.example/",
        "http://127.0.0.1.evil.example:8000/",
        "http://127.0.0.1:8000/?next=https://evil.example",
        "//evil.example",
        "javascript:alert(1)",
    ] {
        let refused = begin_with(&client, "idp-0", flow(elsewhere)).await;
        reason::expect(
            refused.map(drop),
            Code::InvalidArgument,
            ErrorReason::InvalidField,
        );
    }
    let begun = begin_with(&client, "idp-0", flow("http://127.0.0.1:45871/done"))
        .await
        .unwrap();
    let answer = here.browse(0, &begun, "ann").await.page;
    assert_eq!(answer.status, 303, "{answer:?}");
    let location = answer.header("location").unwrap();
    let code = location
        .strip_prefix("http://127.0.0.1:45871/done?code=")
        .unwrap();
    // Without the code the client waits; with another it learns nothing.
    assert_eq!(poll_once(&client, &begun, "").await.unwrap(), None);
    let wrong = poll_once(&client, &begun, &"0".repeat(64)).await;
    reason::expect(wrong, Code::NotFound, ErrorReason::LoginUnknown);
    let tokens = poll_once(&client, &begun, code).await.unwrap().unwrap();
    assert_eq!(here.who(&tokens).await.username, "ann");
}

/// Begins a login on another device, and types its code in there.
async fn on_another_device() -> (Arrangement, Begun, Chromium) {
    let ann = json!({ "ann": { "preferred_username": "ann" } });
    let here = arrange(&[ann], "", "auto_create = true\ndevice_flow = true").await;
    let (client, flow) = (here.world.anonymous(), Flow::Device(DeviceFlow {}));
    let begun = begin_with(&client, "idp-0", Some(flow)).await.unwrap();
    assert!(begun.started.authorization_url.is_empty());
    assert!(!begun.started.user_code.is_empty());
    let chromium = Chromium::start().await;
    chromium.open(&begun.started.verification_uri).await;
    chromium
        .fill("input[name=user_code]", &begun.started.user_code)
        .await;
    chromium.click("[type=submit]").await;
    chromium.element_gone("input[type=text][name=user_code]").await;
    (here, begun, chromium)
}

#[tokio::test]
async fn login_that_is_declined_on_another_device_fails_and_says_so() {
    let (here, begun, chromium) = on_another_device().await;
    chromium.click("button[name=abort]").await;
    let client = here.world.anonymous();
    let declined = poll(&client, &begun).await.map(drop);
    let declined = reason::expect(declined, Code::Unauthenticated, ErrorReason::LoginRefused);
    assert_eq!(
        reason::metadata(&declined, "error").as_deref(),
        Some("access_denied")
    );
}

#[tokio::test]
async fn person_logs_in_on_another_device() {
    let (here, begun, chromium) = on_another_device().await;
    // That it is the right code; the person; consent.
    chromium.click("[type=submit]").await;
    chromium.fill("input[name=login]", "ann").await;
    chromium.fill("input[name=password]", "anything").await;
    chromium.click("button[type=submit]").await;
    chromium.element_gone("input[name=login]").await;
    chromium.click("button[type=submit]").await;
    let tokens = poll(&here.world.anonymous(), &begun).await.unwrap();
    assert_eq!(here.who(&tokens).await.username, "ann");
}

#[tokio::test]
async fn logins_are_listed_with_what_they_were_begun_with_and_ended_one_by_one() {
    let here = arrange_ann().await;
    let one = here.log_in(0, "ann").await.unwrap();
    let two = here.log_in(0, "ann").await.unwrap();
    let client = here.world.anonymous().with_token(&two.access_token);
    let logins = client.auth().list_logins(ListLoginsRequest::default()).await;
    let logins = logins.unwrap().into_inner().logins;
    assert_eq!(logins.len(), 2, "{logins:?}");
    assert_eq!((logins[0].current, logins[1].current), (true, false));
    assert!(logins.iter().all(|login| login.provider == "idp-0"), "{logins:?}");
    assert!(logins[0].client_name.contains("tonic"), "{logins:?}");
    assert_eq!(logins[0].address, "127.0.0.1");

    let name = logins[1].name.clone();
    let other = here.world.create_user().await;
    let foreign = other
        .balanced
        .auth()
        .revoke_login(RevokeLoginRequest { name: name.clone() })
        .await;
    reason::expect(foreign.map(drop), Code::NotFound, ErrorReason::ResourceNotFound);
    client
        .auth()
        .revoke_login(RevokeLoginRequest { name })
        .await
        .unwrap();
    let refreshed = here.refresh(&one).await;
    reason::expect(
        refreshed.map(drop),
        Code::Unauthenticated,
        ErrorReason::TokenRevoked,
    );
    let ended = here.world.anonymous().with_token(&one.access_token);
    harness::eventually(
        super::arrangement::DEADLINE,
        "the ended login is refused",
        async || ended.auth().who_am_i(WhoAmIRequest {}).await.is_err(),
    )
    .await;
}
