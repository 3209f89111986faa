use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A gRPC server in this process that stops when the set is dropped.
async fn instance(port: u16) -> JoinSet<()> {
    let (_, health) = tonic_health::server::health_reporter();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        Server::builder()
            .add_service(health)
            .serve(address(port))
            .await
            .unwrap();
    });
    eventually(SOON, "the instance listens", async || {
        TcpStream::connect(address(port)).await
    })
    .await;
    tasks
}

/// A server that reads the start of a request and hangs up, counting its connections.
async fn hanging_up(connections: Arc<AtomicUsize>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(address(free_port())).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 64];
            let _ = stream.read(&mut buffer).await;
        }
    });
    (address, tasks)
}

async fn client(nginx: &Nginx) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(nginx.url()).unwrap().timeout(SOON);
    HealthClient::new(endpoint.connect().await.unwrap())
}

async fn check(client: &mut HealthClient<Channel>) -> Result<(), Status> {
    client.check(HealthCheckRequest::default()).await.map(|_| ())
}

#[tokio::test]
async fn calls_of_one_client_connection_go_to_every_instance_in_turn() {
    let ports = [free_port(), free_port()];
    let (_a, _b) = (instance(ports[0]).await, instance(ports[1]).await);
    let nginx = Nginx::start(&NginxOptions {
        api_servers: ports.map(address).to_vec(),
        ..NginxOptions::default()
    })
    .await;
    let mut client = client(&nginx).await;
    for _ in 0..4 {
        check(&mut client).await.unwrap();
    }
    eventually(SOON, "both instances are in the log", async || {
        let log = nginx.access_log_text();
        ports
            .iter()
            .all(|port| log.contains(&format!("upstream=127.0.0.1:{port} ")))
    })
    .await;
}

#[tokio::test]
async fn a_stopped_instance_fails_no_call() {
    let ports = [free_port(), free_port()];
    let (a, _b) = (instance(ports[0]).await, instance(ports[1]).await);
    let nginx = Nginx::start(&NginxOptions {
        api_servers: ports.map(address).to_vec(),
        ..NginxOptions::default()
    })
    .await;
    let mut client = client(&nginx).await;
    check(&mut client).await.unwrap();
    drop(a);
    eventually(SOON, "the instance is gone", async || {
        TcpStream::connect(address(ports[0])).await.is_err()
    })
    .await;
    for call in 0..20 {
        check(&mut client)
            .await
            .unwrap_or_else(|status| panic!("call {call}: {status:?}"));
    }
}

#[tokio::test]
async fn no_instance_at_all_is_unavailable_in_grpcs_own_words() {
    let nginx = Nginx::start(&NginxOptions {
        api_servers: vec![address(free_port())],
        ..NginxOptions::default()
    })
    .await;
    let status = check(&mut client(&nginx).await).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "no API instance answered")
    );
}

#[tokio::test]
async fn a_call_that_reached_an_instance_is_not_sent_to_another() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (first, _first) = hanging_up(Arc::clone(&connections)).await;
    let (second, _second) = hanging_up(Arc::clone(&connections)).await;
    let nginx = Nginx::start(&NginxOptions {
        api_servers: vec![first, second],
        ..NginxOptions::default()
    })
    .await;
    let status = check(&mut client(&nginx).await).await.unwrap_err();
    assert_eq!(
        (status.code(), connections.load(Ordering::SeqCst)),
        (Code::Unavailable, 1)
    );
}
