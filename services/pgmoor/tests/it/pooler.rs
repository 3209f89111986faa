//! `pgmoor pooler` from its start to its end, and whom it lets in.

use harness::Process;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::command::SOON;
use crate::world::World;

/// Calls the pooler, trusting the authority beside `role`'s certificate, and showing that certificate where
/// one is named.
async fn health(world: &World, trusted: &World, shown: Option<&str>) -> Result<ServingStatus, tonic::Status> {
    let read = |file: &str| std::fs::read(trusted.file(file)).unwrap();
    let mut tls = ClientTlsConfig::new()
        .domain_name("pooler.pgmoor.internal")
        .ca_certificate(Certificate::from_pem(read("pooler/authority.pem")));
    if let Some(role) = shown {
        let read = |file: &str| read(&format!("{role}/{file}.pem"));
        tls = tls.identity(Identity::from_pem(read("certificate"), read("key")));
    }
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", world.port)).unwrap();
    let channel: Channel = endpoint.tls_config(tls).unwrap().connect_lazy();
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await?;
    Ok(answer.into_inner().status())
}

async fn registered(world: &World) -> i64 {
    let connection = world.database.connect().await;
    let sql = "SELECT count(*) FROM pgmoor.poolers WHERE address = $1 AND lease_until > clock_timestamp()";
    let row = connection
        .query_one(sql, &[&format!("127.0.0.1:{}", world.port)])
        .await
        .unwrap();
    row.get(0)
}

async fn failed(process: &Process, code: i32) -> String {
    assert_eq!(
        process.wait_exit(SOON).await.code(),
        Some(code),
        "{}",
        process.log_text()
    );
    process.stderr_text()
}

#[tokio::test]
async fn pooler_registers_serves_its_peers_and_signs_off_on_sigterm() {
    let world = World::of("pooler").await;
    let process = world.serve().await;
    assert_eq!(registered(&world).await, 1);
    assert_eq!(
        health(&world, &world, Some("pooler")).await.unwrap(),
        ServingStatus::Serving
    );
    process.terminate();
    let log = failed(&process, 0).await;
    assert_eq!(
        log.matches("pgmoor pooler stopped drain=\"graceful\"").count(),
        1,
        "{log}"
    );
    assert_eq!(registered(&world).await, 0);
}

#[tokio::test]
async fn connection_without_a_certificate_is_refused() {
    let world = World::of("pooler").await;
    let _process = world.serve().await;
    health(&world, &world, None).await.unwrap_err();
    // And not because nobody could get in.
    health(&world, &world, Some("pooler")).await.unwrap();
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused() {
    let (world, stranger) = (World::of("pooler").await, World::of("pooler").await);
    let _process = world.serve().await;
    // It trusts us, and we do not trust it.
    std::fs::copy(
        world.file("pooler/authority.pem"),
        stranger.file("pooler/authority.pem"),
    )
    .unwrap();
    health(&world, &stranger, Some("pooler")).await.unwrap_err();
}

#[tokio::test]
async fn opening_key_that_is_not_set_or_is_none_is_named() {
    let mut world = World::of("pooler").await;
    std::fs::write(world.file("opening-key"), "nonsense\n").unwrap();
    let log = failed(&world.spawn(), 1).await;
    assert!(log.contains("an opening key is a line that begins with"), "{log}");
    world.set("PGMOOR_SEALING__OPENING_KEY_FILE", "");
    let log = failed(&world.spawn(), 64).await;
    assert!(log.contains("sealing.opening_key_file is not set"), "{log}");
}

#[tokio::test]
async fn port_that_is_taken_is_named_with_its_key() {
    let world = World::of("pooler").await;
    let _taken = std::net::TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    let log = failed(&world.spawn(), 1).await;
    assert!(log.contains("PGMOOR_POOLER__LISTEN"), "{log}");
}
