//! Tokens of workloads: forged, borrowed, expired, and right.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use e2e::world::OidcOptions;
use e2e::{Client, World, WorldOptions, reason};
use ed25519_dalek::{Signer as _, SigningKey};
use futures::StreamExt as _;
use harness::free_port;
use rpc::auth::v1::{CreateApiTokenRequest, ExchangeTokenRequest, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use rpc::user::v1::{CreateUserRequest, User, UserKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

/// Seconds after which an API instance asks an issuer for its keys again, whatever it is sent.
const SECONDS_BETWEEN_LOOKS: u64 = 10;
const AUDIENCE: &str = "pgmoor";
const SUBJECT: &str = "repo:example/app:ref:refs/heads/main";

/// A CI system: an issuer of tokens on loopback, with metadata and keys and nothing else.
struct Issuer {
    url: String,
    key: SigningKey,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Issuer {
    async fn start() -> Self {
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = BASE64URL_NOPAD.encode(key.verifying_key().as_bytes());
        let metadata = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") }).to_string();
        let keys = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "one", "x": public },
        ] })
        .to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let jwks = String::from_utf8_lossy(&request[..read]).starts_with("GET /jwks");
                if jwks {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                let body = if jwks { &keys } else { &metadata };
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + body).as_bytes()).await;
            }
        });
        Self {
            url,
            key,
            asked,
            _tasks: tasks,
        }
    }

    fn claims(&self) -> Value {
        let now = now();
        json!({
            "iss": self.url, "sub": SUBJECT, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300,
            "repository": "example/app",
        })
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a token states the time by the clock of the machine"
)]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn header() -> Value {
    json!({ "alg": "EdDSA", "typ": "JWT", "kid": "one" })
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

async fn arrange(issuer: &Issuer) -> World {
    let section = format!(
        "[[oidc.workloads]]\nissuer = {:?}\naudience = {AUDIENCE:?}\nsubject = {SUBJECT:?}\n\
         required_claims = {{ repository = [\"example/app\"] }}\nservice_account = \"ci-deploy\"\n",
        issuer.url
    );
    let world = World::start(WorldOptions {
        apis: 1,
        poolers: 0,
        workers: 0,
        oidc: Some(OidcOptions {
            external_port: free_port(),
            section,
        }),
        ..WorldOptions::default()
    })
    .await;
    let account = CreateUserRequest {
        user: Some(User {
            username: "ci-deploy".to_owned(),
            kind: UserKind::ServiceAccount.into(),
            ..User::default()
        }),
        password: String::new(),
    };
    world
        .superuser()
        .await
        .balanced
        .users()
        .create_user(account)
        .await
        .unwrap();
    world
}

async fn exchange(
    client: &Client,
    token: &str,
) -> Result<rpc::auth::v1::ExchangeTokenResponse, tonic::Status> {
    let request = ExchangeTokenRequest {
        token: token.to_owned(),
    };
    Ok(client.auth().exchange_token(request).await?.into_inner())
}

#[tokio::test]
async fn token_of_a_workload_becomes_one_of_its_service_account() {
    let issuer = Issuer::start().await;
    let world = arrange(&issuer).await;
    let client = world.anonymous();
    let exchanged = exchange(&client, &issuer.token(&header(), &issuer.claims()))
        .await
        .unwrap();
    let robot = client.with_token(&exchanged.access_token);
    let who = robot
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((who.username.as_str(), &who.user), ("ci-deploy", &exchanged.user));

    // A token that is good and that no rule lets in.
    let claims = issuer.claims();
    for other in [
        with(&claims, "sub", json!("repo:example/app:pull_request")),
        with(&claims, "repository", json!("example/other")),
    ] {
        let refused = exchange(&client, &issuer.token(&header(), &other)).await;
        reason::expect(refused, Code::PermissionDenied, ErrorReason::WorkloadNotAllowed);
    }
    // An administrator gives the account an API token; nobody else does.
    let wish = CreateApiTokenRequest {
        display_name: "robot".to_owned(),
        lifetime: None,
        user: exchanged.user.clone(),
    };
    let member = world.create_user().await;
    let refused = member.balanced.auth().create_api_token(wish.clone()).await;
    reason::expect(refused.map(drop), Code::NotFound, ErrorReason::ResourceNotFound);
    let root = world.superuser().await;
    let made = root
        .balanced
        .auth()
        .create_api_token(wish)
        .await
        .unwrap()
        .into_inner();
    let robot = client.with_token(&made.token);
    let who = robot
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(who.user, exchanged.user);
}

#[tokio::test]
async fn token_of_a_workload_is_exchanged_a_number_of_times_and_failures_stay_counted() {
    let issuer = Issuer::start().await;
    let world = arrange(&issuer).await;
    let client = world.anonymous();
    let token = issuer.token(&header(), &issuer.claims());
    let refused = exchange(&client, "nonsense").await;
    reason::expect(refused, Code::Unauthenticated, ErrorReason::LoginTokenInvalid);
    exchange(&client, &token).await.unwrap();
    let database = world.config_database().database().connect().await;
    let failures = "SELECT attempts FROM pgmoor.login_throttles WHERE key LIKE 'exchange-token:%'";
    let failures: i32 = database.query_one(failures, &[]).await.unwrap().get(0);
    assert_eq!(failures, 1, "the one that failed");

    let counted = "UPDATE pgmoor.login_throttles SET attempts = 1000 WHERE key LIKE 'exchange-token-of:%'";
    assert_eq!(database.execute(counted, &[]).await.unwrap(), 1);
    let refused = exchange(&client, &token).await;
    reason::expect(refused, Code::ResourceExhausted, ErrorReason::LoginThrottled);
    let another = issuer.token(&header(), &with(&issuer.claims(), "jti", json!("2")));
    exchange(&client, &another).await.unwrap();
}

#[tokio::test]
async fn tokens_that_cannot_be_believed_are_refused_each() {
    let issuer = Issuer::start().await;
    let world = arrange(&issuer).await;
    let client = world.anonymous();
    let claims = issuer.claims();
    let good = issuer.token(&header(), &claims);
    let public = issuer.key.verifying_key();
    let stranger = SigningKey::from_bytes(&[8; 32]);
    let forged = {
        let signed = unsigned(&header(), &claims);
        let signature = stranger.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
    };
    let none = json!({ "alg": "none", "typ": "JWT" });
    let hmac_header = json!({ "alg": "HS256", "typ": "JWT", "kid": "one" });
    let hmac = {
        let signed = unsigned(&hmac_header, &claims);
        let mac = hmac_sha256(public.as_bytes(), signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac))
    };
    let signature = good.rsplit_once('.').unwrap().1;
    let time = now();
    for (what, token) in [
        ("forged", forged),
        (
            "altered",
            format!(
                "{}.{signature}",
                unsigned(&header(), &with(&claims, "sub", json!("x")))
            ),
        ),
        (
            "expired",
            issuer.token(&header(), &with(&claims, "exp", json!(time - 120))),
        ),
        (
            "not yet valid",
            issuer.token(&header(), &with(&claims, "nbf", json!(time + 120))),
        ),
        (
            "from the future",
            issuer.token(&header(), &with(&claims, "iat", json!(time + 120))),
        ),
        (
            "another audience",
            issuer.token(&header(), &with(&claims, "aud", json!("somebody"))),
        ),
        (
            "one more audience",
            issuer.token(&header(), &with(&claims, "aud", json!([AUDIENCE, "somebody"]))),
        ),
        (
            "another issuer",
            issuer.token(&header(), &with(&claims, "iss", json!("https://evil.example"))),
        ),
        ("alg none", format!("{}.", unsigned(&none, &claims))),
        ("alg none, signed", issuer.token(&none, &claims)),
        ("HS256 with the public key", hmac),
        (
            "no expiry",
            issuer.token(&header(), &with(&claims, "exp", Value::Null)),
        ),
        (
            "a critical header",
            issuer.token(&json!({ "alg": "EdDSA", "kid": "one", "crit": ["x"] }), &claims),
        ),
        ("not a token", "nonsense".to_owned()),
        ("empty", String::new()),
        ("long", "a".repeat(200_000)),
        ("ours", world.superuser().await.a().token().unwrap().to_owned()),
    ] {
        let refused = exchange(&client, &token).await;
        let status = refused.expect_err(what);
        assert_eq!(
            (status.code(), rpc::error::reason(&status)),
            (Code::Unauthenticated, Some(ErrorReason::LoginTokenInvalid)),
            "{what}: {status:?}"
        );
    }
    // Off by less than a minute is on time.
    let late = issuer.token(&header(), &with(&claims, "exp", json!(time - 20)));
    exchange(&client, &late).await.unwrap();
}

#[tokio::test]
async fn storm_of_unknown_keys_does_not_reach_the_issuer() {
    let issuer = Issuer::start().await;
    let world = arrange(&issuer).await;
    let client = world.anonymous();
    exchange(&client, &issuer.token(&header(), &issuer.claims()))
        .await
        .unwrap();
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    let began = Instant::now();
    let storm = (0..200).map(|number| {
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": format!("made-up-{number}") });
        let token = issuer.token(&header, &issuer.claims());
        let client = client.clone();
        async move {
            let refused = exchange(&client, &token).await;
            reason::expect(refused, Code::Unauthenticated, ErrorReason::LoginTokenInvalid);
        }
    });
    // As many at a time as a slow machine answers without a deadline passing.
    futures::stream::iter(storm)
        .buffer_unordered(20)
        .collect::<()>()
        .await;
    let most = 2 + began.elapsed().as_secs() / SECONDS_BETWEEN_LOOKS;
    assert!(
        issuer.asked.load(Ordering::SeqCst) as u64 <= most,
        "{:?}, at most {most}",
        issuer.asked
    );
    // And goes on believing what it knows.
    tokio::time::timeout(
        Duration::from_secs(20),
        exchange(&client, &issuer.token(&header(), &issuer.claims())),
    )
    .await
    .unwrap()
    .unwrap();
}

/// HMAC-SHA-256 (RFC 2104), for a key of at most a block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};

    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (place, key) in block.iter_mut().zip(key) {
            *place ^= key;
        }
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}
