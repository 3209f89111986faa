//! `pgmoor api` from its start to its end.

use futures::StreamExt;
use harness::{Cluster, Process, Signal, eventually};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::command::SOON;
use crate::world::World;

async fn channel(world: &World) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", world.port)).unwrap();
    endpoint.connect().await.unwrap()
}

async fn status(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    HealthClient::new(channel.clone())
        .check(request)
        .await
        .unwrap()
        .into_inner()
        .status()
}

/// A call whose request never ends: the server is in the middle of it until one of them gives up.
async fn unfinished_call(channel: Channel) -> tonic::Status {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/pgmoor.auth.v1.AuthService/LoginWithPassword");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let never = tonic::Request::new(futures::stream::pending::<HealthCheckRequest>());
    client
        .client_streaming(never, path, codec)
        .await
        .expect_err("it never ends well")
}

/// The closing line, once the process has ended with this status.
async fn closing_line(process: &Process, code: i32) -> String {
    let exit = process.wait_exit(SOON).await;
    assert_eq!(exit.code(), Some(code), "{}", process.log_text());
    let log = process.stderr_text();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("pgmoor api stopped"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    lines[0].to_owned()
}

#[tokio::test]
async fn api_serves_without_the_opening_key_and_drains_on_sigterm() {
    let world = World::of("api").await;
    std::fs::remove_file(world.path().join("opening-key")).unwrap();
    let process = world.serve().await;
    let channel = channel(&world).await;
    assert_eq!(status(&channel, "").await, ServingStatus::Serving);
    assert_eq!(
        status(&channel, "pgmoor.settings.v1.SettingsService").await,
        ServingStatus::Serving
    );
    // There is no pooler.
    assert_eq!(
        status(&channel, "pgmoor.query.v1.QueryService").await,
        ServingStatus::NotServing
    );
    process.terminate();
    let line = closing_line(&process, 0).await;
    assert!(line.contains("drain=\"graceful\""), "{line}");
}

#[tokio::test]
async fn query_service_is_healthy_while_a_pooler_lives() {
    let world = World::of("api").await;
    let pooler = world.beside("pooler").await;
    let _api = world.serve().await;
    let channel = channel(&world).await;
    let service = "pgmoor.query.v1.QueryService";
    assert_eq!(status(&channel, service).await, ServingStatus::NotServing);
    let running = pooler.serve().await;
    let becomes = async |wanted| {
        let what = format!("{service} is {wanted:?}");
        eventually(SOON, &what, async || status(&channel, service).await == wanted).await;
    };
    becomes(ServingStatus::Serving).await;
    running.terminate();
    becomes(ServingStatus::NotServing).await;
}

#[tokio::test]
async fn interrupt_from_the_terminal_stops_it_too() {
    let process = World::of("api").await.serve().await;
    process.signal(Signal::INT);
    closing_line(&process, 0).await;
}

#[tokio::test]
async fn second_signal_cuts_off_what_the_first_waits_for() {
    let world = World::of("api").await;
    let process = world.serve().await;
    let channel = channel(&world).await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(unfinished_call(channel.clone()));
    // Answered on the same connection, so that the unfinished call has arrived before it.
    assert_eq!(status(&channel, "").await, ServingStatus::Serving);
    process.terminate();
    process.wait_for_line("stopping", SOON).await;
    process.terminate();
    let line = closing_line(&process, 1).await;
    assert!(line.contains("cut off by a second signal"), "{line}");
    tasks.join_all().await;
}

#[tokio::test]
async fn drain_ends_at_its_deadline() {
    let mut world = World::of("api").await;
    world.set("PGMOOR_API__DRAIN_TIMEOUT", "100ms");
    let process = world.serve().await;
    let channel = channel(&world).await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(unfinished_call(channel.clone()));
    assert_eq!(status(&channel, "").await, ServingStatus::Serving);
    process.terminate();
    let line = closing_line(&process, 1).await;
    assert!(line.contains("cut off at the deadline"), "{line}");
    tasks.join_all().await;
}

#[tokio::test]
async fn watcher_of_health_is_told_and_does_not_hold_the_drain() {
    let world = World::of("api").await;
    let process = world.serve().await;
    let mut client = HealthClient::new(channel(&world).await);
    let mut watch = client
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    process.terminate();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    let line = closing_line(&process, 0).await;
    assert!(line.contains("drain=\"graceful\""), "{line}");
}

#[tokio::test]
async fn port_that_is_taken_is_named_with_its_key() {
    let world = World::of("api").await;
    let _taken = std::net::TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    let process = world.spawn();
    assert_eq!(process.wait_exit(SOON).await.code(), Some(1));
    let log = process.stderr_text();
    let address = format!("127.0.0.1:{} is taken by another process", world.port);
    assert!(
        log.contains(&address) && log.contains("PGMOOR_API__LISTEN"),
        "{log}"
    );
}

#[tokio::test]
async fn schema_that_is_not_migrated_is_refused() {
    let mut world = World::of("api").await;
    let empty = Cluster::shared().await.create_database().await;
    world.set("PGMOOR_CONFIG_DATABASE_URL", &empty.url());
    let process = world.spawn();
    assert_eq!(process.wait_exit(SOON).await.code(), Some(1));
    let log = process.stderr_text();
    assert!(log.contains("run: pgmoor migrate"), "{log}");
}

#[tokio::test]
async fn certificate_of_another_role_is_refused() {
    let mut world = World::of("api").await;
    world.run(&[
        "admin",
        "issue-certificate",
        "--role",
        "worker",
        "--name",
        "two",
        "--out",
        "other",
    ]);
    for file in ["certificate", "key"] {
        let path = world.path().join(format!("other/{file}.pem"));
        world.set(
            &format!("PGMOOR_TRUST__API__{}", file.to_uppercase()),
            path.to_str().unwrap(),
        );
    }
    let process = world.spawn();
    assert_eq!(process.wait_exit(SOON).await.code(), Some(1));
    let log = process.stderr_text();
    assert!(
        log.contains("is for pgmoor://worker/two, not for the role api"),
        "{log}"
    );
}

#[tokio::test]
async fn public_port_speaks_tls_when_told() {
    let mut world = World::of("api").await;
    let authority = harness::tls::Authority::new();
    let files = authority.server().write_to(world.path());
    world.set("PGMOOR_API__TLS_CERTIFICATE", files.certificate.to_str().unwrap());
    world.set("PGMOOR_API__TLS_KEY", files.key.to_str().unwrap());
    let _process = world.serve().await;
    let pem = std::fs::read_to_string(files.authority).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", world.port)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    assert_eq!(status(&channel, "").await, ServingStatus::Serving);
}

#[tokio::test]
async fn each_call_has_one_closing_line_also_in_json() {
    let mut world = World::of("api").await;
    world.set("PGMOOR_TELEMETRY__LOG_FORMAT", "json");
    let process = world.serve().await;
    let mut client = tonic::client::Grpc::new(channel(&world).await);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/pgmoor.auth.v1.AuthService/WhoAmI");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let refused = client
        .unary(tonic::Request::new(HealthCheckRequest::default()), path, codec)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let line = process.wait_for_line("call finished", SOON).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["rpc.service"], "pgmoor.auth.v1.AuthService");
    assert_eq!(line["rpc.method"], "WhoAmI");
    assert_eq!(line["grpc.status"], "Unauthenticated");
    assert_eq!(line["span"]["trace.id"].as_str().unwrap().len(), 32);
}
