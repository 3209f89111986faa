//! pgconn against a real PostgreSQL server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cancelling;
mod cluster;
mod connecting;
mod copying;
mod large_values;
mod refusing;
mod statements;

use std::time::Duration;

use pgconn::{ConnectConfig, Connection, Event, TlsMode, TransactionStatus};

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// A superuser connection without TLS.
async fn connect() -> Connection {
    Connection::connect(&trust()).await.unwrap()
}

fn trust() -> ConnectConfig {
    let mut config = cluster::cluster().config("trust", TlsMode::Disable);
    config.require_auth.none = true;
    config
}

async fn next(connection: &mut Connection) -> Event {
    tokio::time::timeout(DEADLINE, connection.next())
        .await
        .expect("no event in time")
        .unwrap()
}

/// Events up to and without the next ReadyForQuery, and its status.
async fn until_ready(connection: &mut Connection) -> (Vec<Event>, TransactionStatus) {
    let mut events = Vec::new();
    loop {
        match next(connection).await {
            Event::ReadyForQuery(status) => return (events, status),
            event => events.push(event),
        }
    }
}

/// Runs a simple query to its end.
async fn query(connection: &mut Connection, sql: &str) -> (Vec<Event>, TransactionStatus) {
    connection.query(sql).unwrap();
    until_ready(connection).await
}

/// Waits until the backend with this process id runs a statement.
async fn until_active(process_id: i32) {
    let mut observer = connect().await;
    let sql = format!("select 1 from pg_stat_activity where pid = {process_id} and state = 'active'");
    harness::eventually(DEADLINE, "the statement runs", async || {
        !rows(&query(&mut observer, &sql).await.0).is_empty()
    })
    .await;
}

/// The values of all rows, as text; NULL is `None`.
fn rows(events: &[Event]) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    for event in events {
        if let Event::DataRow(row) = event {
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            rows.push(row.values().map(|value| value.unwrap().map(text)).collect());
        }
    }
    rows
}

/// The command tags.
fn tags(events: &[Event]) -> Vec<String> {
    let tag = |event: &Event| match event {
        Event::CommandComplete(tag) => Some(tag.to_string()),
        _ => None,
    };
    events.iter().filter_map(tag).collect()
}

/// The one error.
fn error(events: &[Event]) -> &pgconn::ServerError {
    let error = events.iter().find_map(|event| match event {
        Event::Error(error) => Some(error),
        _ => None,
    });
    error.unwrap_or_else(|| panic!("no error in {events:?}"))
}
