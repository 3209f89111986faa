//! A pooler in front of the config database.

use std::sync::Arc;

use harness::{Cluster, ClusterOptions};
use store::ConnectError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;

use crate::support::connect;

/// Lets everybody but the superuser in without a password, so that the pooler below need not know SCRAM.
const TRUST: &str = "host all all 127.0.0.1/32 trust\n";

/// One message of PostgreSQL's protocol with its type and length (manual, 55.7).
async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 5];
    stream.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
    bytes.resize(length as usize + 1, 0);
    stream.read_exact(&mut bytes[5..]).await?;
    Ok(bytes)
}

/// A start-up message or a request for TLS: a length without a type.
async fn startup(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    bytes.resize(length as usize, 0);
    stream.read_exact(&mut bytes[4..]).await?;
    Ok(bytes)
}

/// What the backend says until it is ready, and whether it is in no transaction then.
async fn until_ready(backend: &mut TcpStream) -> std::io::Result<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    loop {
        let next = message(backend).await?;
        all.extend_from_slice(&next);
        if next[0] == b'Z' {
            return Ok((all, next[5] == b'I'));
        }
    }
}

/// Serves one client as PgBouncer does with `pool_mode = transaction` and a pool of one backend.
async fn serve(
    mut client: TcpStream,
    backend: Arc<Mutex<TcpStream>>,
    greeting: Arc<Vec<u8>>,
) -> std::io::Result<()> {
    const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    if startup(&mut client).await? == TLS_REQUEST {
        client.write_all(b"N").await?;
        startup(&mut client).await?;
    }
    client.write_all(&greeting).await?;
    let mut held: Option<OwnedMutexGuard<TcpStream>> = None;
    let mut request = Vec::new();
    loop {
        let next = message(&mut client).await?;
        request.extend_from_slice(&next);
        match next[0] {
            b'X' => return Ok(()),
            b'Q' | b'S' => {}
            _ => continue,
        }
        let mut server = match held.take() {
            Some(server) => server,
            None => Arc::clone(&backend).lock_owned().await,
        };
        server.write_all(&request).await?;
        request.clear();
        let (answer, idle) = until_ready(&mut server).await?;
        client.write_all(&answer).await?;
        held = (!idle).then_some(server);
    }
}

/// A pooler in front of `cluster` and the port it listens on. It ends with the task set.
async fn transaction_pooler(cluster: &Cluster, user: &str) -> (u16, JoinSet<()>) {
    let mut backend = TcpStream::connect(("127.0.0.1", cluster.port())).await.unwrap();
    let parameters = format!("user\0{user}\0database\0postgres\0\0");
    let length = u32::try_from(parameters.len() + 8).unwrap();
    backend.write_all(&length.to_be_bytes()).await.unwrap();
    backend.write_all(&196_608_u32.to_be_bytes()).await.unwrap();
    backend.write_all(parameters.as_bytes()).await.unwrap();
    let greeting = Arc::new(until_ready(&mut backend).await.unwrap().0);
    let backend = Arc::new(Mutex::new(backend));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (backend, greeting) = (Arc::clone(&backend), Arc::clone(&greeting));
            clients.spawn(async move {
                // A client that goes away without a word ends its service.
                let _ = serve(client, backend, greeting).await;
            });
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn pooler_that_pools_transactions_is_refused() {
    let options = ClusterOptions {
        hba: Some(TRUST.to_owned()),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await;
    let user = cluster.create_login("").await.user;
    let url = |port: u16| format!("postgres://{user}@127.0.0.1:{port}/postgres");
    connect(&url(cluster.port())).await.unwrap();
    let (port, _tasks) = transaction_pooler(&cluster, &user).await;
    let error = connect(&url(port)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TransactionPooling), "{error:?}");
}
