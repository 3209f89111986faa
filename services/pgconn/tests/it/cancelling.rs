//! Cancel requests.

use std::net::TcpListener;
use std::time::Duration;

use pgconn::{CancelError, Connection, TlsMode, TransactionStatus};

use crate::cluster::cluster;
use crate::{DEADLINE, connect, error, until_active, until_ready};

async fn cancel_sleep(mut connection: Connection) {
    connection.query("select pg_sleep(600)").unwrap();
    connection.flush_or_next().await.unwrap();
    until_active(connection.process_id().unwrap()).await;
    let key = connection.cancel_key().unwrap().clone();
    key.send(connection.cancel_target(), DEADLINE).await.unwrap();
    let (events, status) = until_ready(&mut connection).await;
    assert_eq!(error(&events).sqlstate, "57014");
    assert_eq!(status, TransactionStatus::Idle);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn cancel_ends_a_sleeping_statement() {
    cancel_sleep(connect().await).await;
}

#[tokio::test]
async fn cancel_uses_tls_like_the_connection() {
    let config = cluster().config("scram", cluster().verify_full());
    let connection = Connection::connect(&config).await.unwrap();
    assert!(matches!(
        connection.cancel_target().tls,
        TlsMode::VerifyFull { .. }
    ));
    cancel_sleep(connection).await;
}

#[tokio::test]
async fn cancel_that_meets_silence_says_that_it_may_still_take_effect() {
    let connection = connect().await;
    let key = connection.cancel_key().unwrap().clone();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut target = connection.cancel_target().clone();
    target.host.address = silent.local_addr().unwrap();
    let result = key.send(&target, Duration::from_millis(200)).await;
    assert!(
        matches!(result, Err(CancelError::Timeout { sent: true })),
        "{result:?}"
    );
    drop(silent);
    let result = key.send(&target, DEADLINE).await;
    assert!(matches!(result, Err(CancelError::Connect(_))), "{result:?}");
}
