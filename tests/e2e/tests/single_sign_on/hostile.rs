//! Replays, foreign states, and other ways to somebody else's login.

use e2e::reason;
use rpc::auth::v1::{PollLoginRequest, StartLoginRequest};
use rpc::errors::v1::ErrorReason;
use serde_json::json;
use tonic::Code;

use super::arrangement::{Returned, arrange, arrange_ann, begin, can_be_collected, poll, poll_once};

fn parameter<'a>(url: &'a str, name: &str) -> &'a str {
    let query = url.split_once('?').unwrap().1;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(other, _)| *other == name).unwrap().1
}

async fn open(url: &str) -> e2e::http::Answer {
    e2e::http::request("GET", url, "", None).await
}

#[tokio::test]
async fn state_and_code_work_once_and_only_together() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" }, "eve": { "preferred_username": "eve" } })],
        "",
        "auto_create = true",
    )
    .await;
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    let back = here.providers[0]
        .fill_forms(&begun.started.authorization_url, "ann")
        .await;
    let mut returned = Returned::open(&back).await;
    let first = returned.page.clone();
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.header("cache-control"), Some("no-store"));
    for header in [
        "content-security-policy",
        "referrer-policy",
        "x-content-type-options",
        "x-frame-options",
    ] {
        assert!(first.header(header).is_some(), "{header}: {first:?}");
    }
    // The same again, on every instance.
    let path = back.split_once("/oidc/").unwrap().1.to_owned();
    for instance in here.world.http_urls() {
        let again = open(&format!("{instance}/oidc/{path}")).await;
        assert_eq!(again.status, 403, "{again:?}");
        assert!(!again.body.contains(parameter(&back, "state")), "{again:?}");
    }
    returned.answer("confirm").await;
    let tokens = poll(&client, &begun).await.unwrap();
    assert_eq!(here.who(&tokens).await.username, "ann");

    // Eve's code in Ann's login: the provider's PKCE refuses it, and the login is over.
    let (ann, eve) = (
        begin(&client, "idp-0").await.unwrap(),
        begin(&client, "idp-0").await.unwrap(),
    );
    let back = here.providers[0]
        .fill_forms(&eve.started.authorization_url, "eve")
        .await;
    let mixed = back.replace(
        parameter(&back, "state"),
        parameter(&ann.started.authorization_url, "state"),
    );
    assert_eq!(open(&mixed).await.status, 403);
    reason::expect(
        poll(&client, &ann).await,
        Code::Unauthenticated,
        ErrorReason::LoginRefused,
    );

    // An answer that says it is another provider's, and one that does not say whose it is.
    for wrong in [
        back.replace(parameter(&back, "iss"), "https%3A%2F%2Fevil.example"),
        back.replace(&format!("&iss={}", parameter(&back, "iss")), ""),
    ] {
        let begun = begin(&client, "idp-0").await.unwrap();
        let wrong = wrong.replace(
            parameter(&wrong, "state"),
            parameter(&begun.started.authorization_url, "state"),
        );
        assert_eq!(open(&wrong).await.status, 403);
        reason::expect(
            poll(&client, &begun).await,
            Code::Unauthenticated,
            ErrorReason::LoginTokenInvalid,
        );
    }
    // A person who declines, with something to be repeated.
    let begun = begin(&client, "idp-0").await.unwrap();
    let declined = format!(
        "http://127.0.0.1:{}/oidc/callback/idp-0?state={}&error=access_denied%3Cscript%3E&iss={}",
        here.external_port,
        parameter(&begun.started.authorization_url, "state"),
        parameter(&back, "iss"),
    );
    let answer = open(&declined).await;
    assert!(!answer.body.contains("<script"), "{answer:?}");
    reason::expect(
        poll(&client, &begun).await,
        Code::Unauthenticated,
        ErrorReason::LoginRefused,
    );
    // What is no answer of a provider at all.
    for query in [
        "",
        "?state=",
        "?state=x",
        "?code=x",
        "?state=a&state=b",
        "?state=%00&code=%ff",
    ] {
        let url = format!(
            "http://127.0.0.1:{}/oidc/callback/idp-0{query}",
            here.external_port
        );
        let answer = open(&url).await;
        assert!([400, 403].contains(&answer.status), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn stolen_login_id_or_row_of_the_config_database_is_of_no_use() {
    let here = arrange_ann().await;
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    here.browse_and_confirm(0, &begun, "ann").await;
    let database = here.world.config_database().database().connect().await;
    let row = database
        .query_one(
            "SELECT a::text, encode(sealed, 'escape') FROM pgmoor.login_attempts AS a",
            &[],
        )
        .await
        .unwrap();
    let (row, sealed): (String, String) = (row.get(0), row.get(1));
    assert!(
        !row.contains(&begun.verifier) && !sealed.contains("nonce"),
        "{row}"
    );
    let ask = async |login_id: &str, verifier: &str| {
        let request = PollLoginRequest {
            login_id: login_id.to_owned(),
            code_verifier: verifier.to_owned(),
            redirect_code: String::new(),
        };
        let refused = client.auth().poll_login(request).await;
        let status = reason::expect(refused.map(drop), Code::NotFound, ErrorReason::LoginUnknown);
        status.message().to_owned()
    };
    let stolen = ask(&begun.started.login_id, &"w".repeat(43)).await;
    let nothing = ask("8b7f0a5e-6a3e-4c3e-9a52-5b8f1d0f6a11", &begun.verifier).await;
    assert_eq!(stolen, nothing);
    // Whoever goes on guessing ends the login.
    for _ in 0..10 {
        ask(&begun.started.login_id, &"w".repeat(43)).await;
    }
    reason::expect(
        poll_once(&client, &begun, "").await,
        Code::NotFound,
        ErrorReason::LoginUnknown,
    );

    let unknown = StartLoginRequest {
        provider: "nobody".to_owned(),
        code_challenge: "A".repeat(43),
        flow: None,
    };
    let refused = client.auth().start_login(unknown).await;
    reason::expect(
        refused.map(drop),
        Code::NotFound,
        ErrorReason::LoginProviderUnknown,
    );
    let device = rpc::auth::v1::start_login_request::Flow::Device(rpc::auth::v1::DeviceFlow {});
    let refused = super::arrangement::begin_with(&client, "idp-0", Some(device)).await;
    reason::expect(
        refused.map(drop),
        Code::FailedPrecondition,
        ErrorReason::LoginFlowNotOffered,
    );
}

#[tokio::test]
async fn secrets_of_a_login_are_in_no_log_and_its_token_can_be_checked_by_the_published_keys() {
    let here = arrange_ann().await;
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    let back = here.providers[0]
        .fill_forms(&begun.started.authorization_url, "ann")
        .await;
    let mut returned = Returned::open(&back).await;
    let token = returned
        .form("")
        .trim_start_matches("token=")
        .replace("&answer=", "");
    returned.answer("confirm").await;
    let tokens = poll(&client, &begun).await.unwrap();
    let secrets = here.world.secrets();
    for (what, secret) in [
        ("a client secret", here.providers[0].client_secret()),
        ("a code verifier", &begun.verifier),
        ("a state", parameter(&back, "state")),
        ("a code", parameter(&back, "code")),
        ("what confirms a login", &token),
        ("an access token", &tokens.access_token),
        ("a refresh token", &tokens.refresh_token),
    ] {
        secrets.remember(what, secret);
    }
    for (place, log) in here.world.logs() {
        assert_eq!(secrets.found_in(&log), Vec::<String>::new(), "{place}");
    }

    let header = tokens.access_token.split('.').next().unwrap();
    let header = data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    let url = format!("http://127.0.0.1:{}/.well-known/jwks.json", here.external_port);
    let published: serde_json::Value = serde_json::from_str(&open(&url).await.body).unwrap();
    let keys = published["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
    );
    assert!(key.get("d").is_none(), "a private key is published");
}

#[tokio::test]
async fn login_that_somebody_else_began_is_theirs_only_if_the_person_who_was_sent_there_says_so() {
    let here = arrange_ann().await;
    // Eve begins logins and sends Ann the addresses.
    let eve = here.world.anonymous();
    let begun = begin(&eve, "idp-0").await.unwrap();
    let mut ann = here.browse(0, &begun, "ann").await;
    let page = ann.page.clone();
    assert!(page.body.contains(&begun.started.confirmation_code), "{page:?}");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let cookie = page.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    // Coming back is no login yet, however Eve asks, and what she can send confirms nothing: she has neither page nor cookie.
    assert!(!can_be_collected(&eve, &begun).await);
    let (url, form) = (ann.confirm_url(), ann.form("confirm"));
    let kind = "application/x-www-form-urlencoded";
    let cookie = cookie.split(';').next().unwrap();
    let other_cookie = format!("{}={}", cookie.split('=').next().unwrap(), "0".repeat(64));
    for headers in [
        String::new(),
        format!("cookie: {other_cookie}\r\n"),
        format!("cookie: {cookie}; {cookie}\r\n"),
        // A form of another site, by Ann's own browser.
        format!("cookie: {cookie}\r\nsec-fetch-site: cross-site\r\n"),
    ] {
        let refused = e2e::http::request("POST", &url, &headers, Some((kind, &form))).await;
        assert!([400, 403].contains(&refused.status), "{headers}: {refused:?}");
    }
    let unasked = e2e::http::request(
        "GET",
        &format!("{url}?{form}"),
        &format!("cookie: {cookie}\r\n"),
        None,
    )
    .await;
    assert_eq!(unasked.status, 405, "{unasked:?}");
    assert!(!can_be_collected(&eve, &begun).await);
    // Ann declines. That is the end of it.
    let declined = ann.answer("decline").await;
    assert!(declined.body.contains("Nobody is logged in"), "{declined:?}");
    reason::expect(
        poll_once(&eve, &begun, "").await,
        Code::PermissionDenied,
        ErrorReason::LoginDeclined,
    );
    assert_eq!(ann.answer("confirm").await.status, 403);
    reason::expect(
        poll_once(&eve, &begun, "").await,
        Code::PermissionDenied,
        ErrorReason::LoginDeclined,
    );

    // A login of one's own, in the same browser beside it.
    let (one, two) = (
        begin(&eve, "idp-0").await.unwrap(),
        begin(&eve, "idp-0").await.unwrap(),
    );
    let mut first = here.browse(0, &one, "ann").await;
    let second = here.browse(0, &two, "ann").await;
    first.answer("confirm").await;
    assert!(poll(&eve, &one).await.is_ok());
    assert!(!can_be_collected(&eve, &two).await);
    drop(second);
}

#[tokio::test]
async fn answer_of_one_provider_is_no_answer_of_another() {
    let here = arrange(
        &[
            json!({ "ann": { "preferred_username": "ann" } }),
            json!({ "ann": { "preferred_username": "ann-at-1" } }),
        ],
        "",
        "auto_create = true",
    )
    .await;
    let client = here.world.anonymous();
    let begun = begin(&client, "idp-0").await.unwrap();
    assert!(
        begun.started.authorization_url.contains("callback%2Fidp-0"),
        "{}",
        begun.started.authorization_url
    );
    let back = here.providers[0]
        .fill_forms(&begun.started.authorization_url, "ann")
        .await;
    for elsewhere in [
        "/oidc/callback/idp-1",
        "/oidc/callback/nobody",
        "/oidc/callback/%3Cscript%3E",
    ] {
        let mixed = open(&back.replace("/oidc/callback/idp-0", elsewhere)).await;
        assert_eq!(mixed.status, 403, "{mixed:?}");
    }
    // To an instance itself: nginx does not let it pass.
    let path = back.split_once("/oidc/callback/idp-0").unwrap().1;
    let instance = &here.world.http_urls()[0];
    let odd = open(&format!("{instance}/oidc/callback/idp-0%00{path}")).await;
    assert_eq!(odd.status, 403, "{odd:?}");
    assert_eq!(
        open(&back.replace("/oidc/callback/idp-0", "/oidc/callback"))
            .await
            .status,
        404
    );
    // It was not used up.
    let mut returned = Returned::open(&back).await;
    assert_eq!(returned.page.status, 200, "{:?}", returned.page);
    returned.answer("confirm").await;
    let tokens = poll(&client, &begun).await.unwrap();
    assert_eq!(here.who(&tokens).await.username, "ann");
}
