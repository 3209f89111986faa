//! Logging in: passwords, TLS, and servers that should not be trusted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use pgconn::{
    Authentication, ConnectConfig, ConnectError, Connection, ConnectionError, Event, HostPort, Poison,
    ProtocolError, RequireAuth, SendError, TlsMode, TlsRoots,
};

use crate::cluster::cluster;
use crate::{query, rows, trust};

async fn refusal(config: &ConnectConfig) -> ConnectError {
    Connection::connect(config).await.unwrap_err()
}

fn sqlstate(error: &ConnectError) -> &str {
    match error {
        ConnectError::Server(error) => error.sqlstate.as_str(),
        error => panic!("not from the server: {error:?}"),
    }
}

#[tokio::test]
async fn scram_login_without_tls_leaves_a_quiet_connection() {
    let mut config = cluster().config("scram", TlsMode::Disable);
    config.application_name = "pgmoor test".to_owned();
    config
        .startup_parameters
        .push(("work_mem".to_owned(), "5MB".to_owned()));
    let mut connection = Connection::connect(&config).await.unwrap();
    assert_eq!(connection.authentication(), Authentication::ScramSha256);
    assert!(connection.is_quiet());
    assert_eq!(connection.parameters().get("client_encoding").unwrap(), &"UTF8");
    assert!(
        connection
            .parameters()
            .get("server_version")
            .unwrap()
            .to_string()
            .starts_with("15.")
    );
    let sql = "select current_user, current_setting('application_name'), current_setting('work_mem'), \
               pg_backend_pid()";
    let (events, _) = query(&mut connection, sql).await;
    let pid = connection.process_id().unwrap().to_string();
    let expected = ["scram", "pgmoor test", "5MB", &pid].map(|text| Some(text.to_owned()));
    assert_eq!(rows(&events), [expected]);
    assert!(connection.is_quiet());
    connection.terminate(crate::DEADLINE).await.unwrap();
}

#[tokio::test]
async fn wrong_password_and_missing_database_are_the_servers_own_errors() {
    let mut config = cluster().config("scram", TlsMode::Disable);
    config.password = Some("wrong".into());
    assert_eq!(sqlstate(&refusal(&config).await), "28P01");
    let mut config = cluster().config("scram", TlsMode::Disable);
    config.database = "nowhere".to_owned();
    assert_eq!(sqlstate(&refusal(&config).await), "3D000");
    config.password = None;
    assert!(matches!(refusal(&config).await, ConnectError::PasswordMissing));
}

#[tokio::test]
async fn weaker_authentication_needs_to_be_allowed() {
    for (user, offered) in [("md5", "md5"), ("password", "password"), ("trust", "none")] {
        match refusal(&cluster().config(user, TlsMode::Disable)).await {
            ConnectError::AuthMethodRefused { offered: actual } => assert_eq!(actual, offered),
            error => panic!("{user}: {error:?}"),
        }
    }
    let mut config = cluster().config("scram", TlsMode::Disable);
    config.require_auth = RequireAuth {
        scram_sha_256: false,
        ..RequireAuth::ANY
    };
    assert!(matches!(
        refusal(&config).await,
        ConnectError::AuthMethodRefused { .. }
    ));

    let expected = [
        ("md5", Authentication::Md5),
        ("password", Authentication::Password),
        ("trust", Authentication::None),
    ];
    for (user, authentication) in expected {
        let mut config = cluster().config(user, TlsMode::Disable);
        config.require_auth = RequireAuth::ANY;
        let connection = Connection::connect(&config).await.unwrap();
        assert_eq!(connection.authentication(), authentication);
    }
}

#[tokio::test]
async fn scram_over_tls_is_bound_to_the_channel() {
    for tls in [TlsMode::Require, cluster().verify_full()] {
        let mut connection = Connection::connect(&cluster().config("scram", tls))
            .await
            .unwrap();
        assert_eq!(connection.authentication(), Authentication::ScramSha256Plus);
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let (events, _) = query(&mut connection, sql).await;
        assert_eq!(rows(&events), [[Some("t".to_owned())]]);
        connection.terminate(crate::DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn verify_full_refuses_another_name_and_another_authority() {
    let mut config = cluster().config("scram", cluster().verify_full());
    config.hosts[0].name = "other.test".to_owned();
    assert!(matches!(refusal(&config).await, ConnectError::Tls { .. }));

    let other_ca = harness::tls::Authority::new().pem().to_owned();
    let roots = TlsRoots::from_pem(other_ca.as_bytes()).unwrap();
    let config = cluster().config("scram", TlsMode::VerifyFull { roots });
    assert!(matches!(refusal(&config).await, ConnectError::Tls { .. }));
}

#[tokio::test]
async fn absent_server_is_unreachable_and_the_next_host_is_tried() {
    let mut config = trust();
    let present = config.hosts[0].clone();
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.hosts = vec![HostPort {
        name: "absent".to_owned(),
        address: absent,
    }];
    match refusal(&config).await {
        ConnectError::Unreachable { addr, .. } => assert_eq!(addr, absent),
        error => panic!("{error:?}"),
    }
    config.hosts.push(present.clone());
    let connection = Connection::connect(&config).await.unwrap();
    assert_eq!(connection.address(), present.address);
}

#[tokio::test]
async fn silent_server_costs_its_share_of_the_deadline_and_not_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = trust();
    config.connect_timeout = Duration::from_secs(4);
    config.hosts.insert(
        0,
        HostPort {
            name: "silent".into(),
            address: silent.local_addr().unwrap(),
        },
    );
    let start = Instant::now();
    Connection::connect(&config).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2));

    config.hosts.truncate(1);
    config.connect_timeout = Duration::from_millis(200);
    assert!(matches!(refusal(&config).await, ConnectError::Timeout { .. }));
}

/// A server that reads one packet, answers with fixed bytes, and waits for the end of the connection.
fn false_server(answer: &'static [u8]) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut packet = [0; 1024];
        let _ = stream.read(&mut packet).unwrap();
        stream.write_all(answer).unwrap();
        // Ends with the client, by its close or its reset.
        while matches!(stream.read(&mut packet), Ok(1..)) {}
    });
    (address, thread)
}

async fn refusal_of(answer: &'static [u8], tls: TlsMode) -> ConnectError {
    let (address, thread) = false_server(answer);
    let mut config = cluster().config("scram", tls);
    config.hosts[0].address = address;
    let error = refusal(&config).await;
    thread.join().unwrap();
    error
}

#[tokio::test]
async fn tls_is_not_given_up_when_the_server_refuses_it() {
    assert!(matches!(
        refusal_of(b"N", TlsMode::Require).await,
        ConnectError::TlsRefused { .. }
    ));
}

#[tokio::test]
async fn bytes_injected_before_tls_are_refused() {
    let injected = b"SR\0\0\0\x08\0\0\0\0";
    assert!(matches!(
        refusal_of(injected, TlsMode::Require).await,
        ConnectError::TlsInjection { .. }
    ));
}

#[tokio::test]
async fn unauthenticated_error_text_before_tls_is_not_shown() {
    let error = refusal_of(b"E\0\0\0\x14SERROR\0Mfalse\0\0", TlsMode::Require).await;
    assert!(matches!(error, ConnectError::Protocol { .. }));
    assert!(!format!("{error:?}").contains("false"));
}

#[tokio::test]
async fn scram_server_that_skips_its_own_proof_is_refused() {
    // SASL offered, then success without the exchange.
    let answer = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x08\0\0\0\0";
    let error = refusal_of(answer, TlsMode::Disable).await;
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn another_protocol_is_refused_at_its_first_byte() {
    let error = refusal_of(b"HTTP/1.1 400 Bad Request\r\n\r\n", TlsMode::Disable).await;
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn server_that_negotiates_the_protocol_version_is_understood() {
    // NegotiateProtocolVersion (minor 0, one unknown option), AuthenticationOk, ReadyForQuery.
    let answer = b"v\0\0\0\x14\0\0\0\0\0\0\0\x01_pq_.ab\0R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    let (address, thread) = false_server(answer);
    let mut config = trust();
    config.hosts[0].address = address;
    let connection = Connection::connect(&config).await.unwrap();
    assert!(connection.is_quiet());
    assert!(connection.cancel_key().is_none());
    drop(connection);
    thread.join().unwrap();
}

#[tokio::test]
async fn server_that_breaks_the_protocol_poisons_the_connection() {
    // AuthenticationOk, ReadyForQuery, and a second ReadyForQuery nobody asked for.
    let answer = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05IZ\0\0\0\x05I";
    let (address, thread) = false_server(answer);
    let mut config = trust();
    config.hosts[0].address = address;
    let mut connection = Connection::connect(&config).await.unwrap();
    let broken = ProtocolError::Unexpected {
        message: "ReadyForQuery",
    };
    match connection.next().await {
        Err(ConnectionError::Protocol(error)) => assert_eq!(error, broken),
        other => panic!("{other:?}"),
    }
    let cause = Poison::Protocol(broken);
    assert_eq!(connection.poison(), Some(cause));
    assert!(!connection.is_quiet());
    assert_eq!(connection.query("select 1"), Err(SendError::Poisoned { cause }));
    assert!(matches!(
        connection.next().await,
        Err(ConnectionError::Poisoned { .. })
    ));
    drop(connection);
    thread.join().unwrap();
}

#[tokio::test]
async fn connection_and_its_futures_may_move_between_threads() {
    let config = trust();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connection = Connection::connect(&config).await.unwrap();
        connection.query("select 1").unwrap();
        while !matches!(connection.next().await.unwrap(), Event::ReadyForQuery(_)) {}
        connection.terminate(crate::DEADLINE).await.unwrap();
    });
    tasks.join_next().await.unwrap().unwrap();
}
