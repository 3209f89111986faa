//! The pooler's port: who is let in, and as whom.

use std::path::Path;
use std::time::Duration;

use e2e::World;
use e2e::admin::Certificate;
use e2e::reason;
use harness::tls::Authority;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::pooler_service_client::PoolerServiceClient;
use rpc::pooler::v1::{LeaseSlotsRequest, ListSessionsRequest, OpenSessionRequest};
use tokio::time::Instant;
use tonic::transport::{Certificate as TlsCertificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::worlds::shared;

/// How long what is revoked may go on.
const REVOCATION: Duration = Duration::from_secs(5);
/// The name in every pooler's certificate.
const POOLER: &str = "pooler.pgmoor.internal";

fn pooler(world: &World) -> Endpoint {
    let port = world.poolers()[0].port();
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    endpoint.timeout(Duration::from_secs(10))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn tls(world: &World) -> ClientTlsConfig {
    let authority = read(&world.certificate("pooler-0").authority);
    ClientTlsConfig::new()
        .ca_certificate(TlsCertificate::from_pem(authority))
        .domain_name(POOLER)
}

fn identity(files: &Certificate) -> Identity {
    Identity::from_pem(read(&files.certificate), read(&files.key))
}

/// Lists sessions on the pooler with that token.
async fn list(channel: Channel, token: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(ListSessionsRequest {
        parent: "servers/-".to_owned(),
    });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    PoolerServiceClient::new(channel)
        .list_sessions(request)
        .await
        .map(drop)
}

#[tokio::test]
async fn pooler_takes_no_call_without_a_certificate_of_its_authority() {
    let world = &shared().await.world;
    let token = world.superuser().await.a().token().unwrap().to_owned();
    let clear = Endpoint::from_shared(format!("http://127.0.0.1:{}", world.poolers()[0].port())).unwrap();
    let foreign = Authority::new().issue("api-0", &["api-0.api.pgmoor.internal", "api.pgmoor.internal"]);
    let foreign = tls(world).identity(Identity::from_pem(&foreign.certificate, &foreign.key));
    for endpoint in [
        clear.timeout(Duration::from_secs(10)),
        pooler(world).tls_config(tls(world)).unwrap(),
        pooler(world).tls_config(foreign).unwrap(),
    ] {
        // The handshake may be seen to fail by connecting or by the first call.
        let answer = match endpoint.connect().await {
            Ok(channel) => list(channel, Some(&token)).await,
            Err(_) => continue,
        };
        let status = answer.expect_err("nobody without a certificate is let in");
        assert!(
            matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
            ),
            "{status:?}"
        );
    }
    assert!(world.poolers()[0].is_running());
}

#[tokio::test]
async fn pooler_believes_no_certificate_holder_about_who_the_user_is() {
    let world = &shared().await.world;
    let token = world.superuser().await.a().token().unwrap().to_owned();
    let tls = tls(world).identity(identity(&world.certificate("api-0")));
    let channel = pooler(world).tls_config(tls).unwrap().connect().await.unwrap();
    list(channel.clone(), Some(&token)).await.unwrap();

    let missing = list(channel.clone(), None).await;
    reason::expect(missing, Code::Unauthenticated, ErrorReason::CredentialsMissing);
    for forged in forged(&token) {
        let refused = list(channel.clone(), Some(&forged)).await;
        reason::expect(refused, Code::Unauthenticated, ErrorReason::TokenInvalid);
    }
    let request = OpenSessionRequest { request: None };
    let refused = PoolerServiceClient::new(channel).open_session(request).await;
    reason::expect(refused, Code::Unauthenticated, ErrorReason::CredentialsMissing);
}

/// Tokens that look like that one and are not: another signature, another content, none.
fn forged(token: &str) -> Vec<String> {
    let flip = |at: usize| {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let payload = token.find('.').unwrap() + 10;
    let unsigned = token.rsplit_once('.').unwrap().0;
    vec![
        flip(token.len() - 20),
        flip(payload),
        format!("{unsigned}."),
        unsigned.to_owned(),
        format!("{token}A"),
    ]
}

#[tokio::test]
async fn slots_are_leased_to_workers_only() {
    let world = &shared().await.world;
    let tls = tls(world).identity(identity(&world.certificate("api-0")));
    let channel = pooler(world).tls_config(tls).unwrap().connect().await.unwrap();
    let mut request = Request::new(LeaseSlotsRequest {
        count: 1,
        ..LeaseSlotsRequest::default()
    });
    let token = world.superuser().await.a().token().unwrap().to_owned();
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let refused = PoolerServiceClient::new(channel).lease_slots(request).await;
    reason::expect(
        refused.map(drop),
        Code::PermissionDenied,
        ErrorReason::PermissionMissing,
    );
}

/// What an API instance sends that says of a server what is not so: the pooler asks nobody but the token and the config
/// database.
#[tokio::test]
async fn api_instance_that_lies_about_a_server_or_its_user_gets_nowhere() {
    let world = &shared().await.world;
    let (owner, stranger) = tokio::join!(world.create_user(), world.create_user());
    let server = world.register_target(owner.a()).await;
    let tls = tls(world).identity(identity(&world.certificate("api-0")));
    let channel = pooler(world).tls_config(tls).unwrap().connect().await.unwrap();
    let mut client = PoolerServiceClient::new(channel);
    let token = |client: &e2e::Client| format!("Bearer {}", client.token().unwrap());
    let signed = |token: &str, mut request: Request<()>| {
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
        request
    };
    let open = |token: &str| {
        let request = rpc::query::v1::OpenSessionRequest {
            server: server.clone(),
            mode: rpc::query::v1::SessionMode::Auto.into(),
            ..Default::default()
        };
        signed(token, Request::new(())).map(|()| OpenSessionRequest {
            request: Some(request),
        })
    };
    let run = |token: &str| {
        let script = rpc::query::v1::Script {
            sql: "SELECT 1".to_owned(),
            ..Default::default()
        };
        let script = rpc::pooler::v1::RunScriptRequest {
            server: server.clone(),
            script: Some(script),
            ..Default::default()
        };
        signed(token, Request::new(())).map(|()| script)
    };
    let test = |token: &str| {
        let request = rpc::server::v1::TestServerRequest {
            name: server.clone(),
            ..Default::default()
        };
        signed(token, Request::new(())).map(|()| rpc::pooler::v1::TestServerRequest {
            request: Some(request),
        })
    };
    let (own, foreign) = (token(owner.a()), token(stranger.a()));
    let session = client.open_session(open(&own)).await.unwrap().into_inner();
    let session = session.session.unwrap().name;

    let (code, why) = (Code::NotFound, ErrorReason::ResourceNotFound);
    reason::expect(client.open_session(open(&foreign)).await, code, why);
    reason::expect(client.run_script(run(&foreign)).await.map(drop), code, why);
    reason::expect(client.test_server(test(&foreign)).await, code, why);
    let request = || rpc::pooler::v1::GetSessionRequest {
        name: session.clone(),
    };
    let stolen = signed(&foreign, Request::new(())).map(|()| request());
    reason::expect(client.get_session(stolen).await, code, why);
    let kept = signed(&own, Request::new(())).map(|()| request());
    client.get_session(kept).await.unwrap();
}

/// An API instance that goes on with a token it was once given.
#[tokio::test]
async fn pooler_refuses_the_token_of_a_login_that_ended_whoever_keeps_it() {
    let world = &shared().await.world;
    let owner = world.create_user().await;
    let server = world.register_target(owner.a()).await;
    let tls = tls(world).identity(identity(&world.certificate("api-0")));
    let channel = pooler(world).tls_config(tls).unwrap().connect().await.unwrap();
    let mut client = PoolerServiceClient::new(channel.clone());
    let kept = format!("Bearer {}", owner.a().token().unwrap());
    let signed = |mut request: Request<()>| {
        let value = kept.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    };
    let open = rpc::query::v1::OpenSessionRequest {
        server: server.clone(),
        mode: rpc::query::v1::SessionMode::Pinned.into(),
        ..Default::default()
    };
    let open = signed(Request::new(())).map(|()| OpenSessionRequest { request: Some(open) });
    let opened = client.open_session(open).await.unwrap().into_inner();
    let session = opened.session.unwrap().name;
    let execute = |sql: &str| {
        let script = rpc::query::v1::Script {
            sql: sql.to_owned(),
            ..Default::default()
        };
        let request = rpc::query::v1::ExecuteRequest {
            session: session.clone(),
            script: Some(script),
            ..Default::default()
        };
        signed(Request::new(())).map(|()| rpc::pooler::v1::ExecuteRequest {
            request: Some(request),
        })
    };
    let mut first = client.execute(execute("SELECT 1")).await.unwrap().into_inner();
    while first.message().await.unwrap().is_some() {}
    // One that still says something when the login ends.
    let endless = "SELECT pg_sleep(0.1) FROM generate_series(1, 600)";
    let mut running = client.execute(execute(endless)).await.unwrap().into_inner();
    running.message().await.unwrap().expect("it has begun");

    let ended = Instant::now();
    owner
        .a()
        .auth()
        .logout(rpc::auth::v1::LogoutRequest {})
        .await
        .unwrap();
    let (code, why) = (Code::Unauthenticated, ErrorReason::TokenRevoked);
    let cut_off = async {
        loop {
            match running.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ran to its end"),
                Err(status) => break status,
            }
        }
    };
    let status = tokio::time::timeout(REVOCATION, cut_off).await;
    reason::expect(Err::<(), _>(status.expect("it is cut off in time")), code, why);
    harness::eventually(
        REVOCATION - ended.elapsed().min(REVOCATION),
        "the token is refused",
        async || {
            let answer = PoolerServiceClient::new(channel.clone())
                .execute(execute("SELECT 1"))
                .await;
            match answer {
                Err(status) if rpc::error::reason(&status) == Some(why) => Ok(()),
                other => Err(format!("{:?}", other.map(drop))),
            }
        },
    )
    .await;
    reason::expect(client.execute(execute("SELECT 1")).await.map(drop), code, why);
    let resume = rpc::query::v1::ResumeExecutionRequest {
        name: format!("{session}/executions/00000000-0000-4000-8000-000000000000"),
        after_sequence: 0,
    };
    let resume = signed(Request::new(())).map(|()| rpc::pooler::v1::ResumeExecutionRequest {
        request: Some(resume),
    });
    reason::expect(client.resume_execution(resume).await.map(drop), code, why);
    let watch = signed(Request::new(())).map(|()| rpc::pooler::v1::WatchSessionRequest {
        session: session.clone(),
    });
    reason::expect(client.watch_session(watch).await.map(drop), code, why);
}
