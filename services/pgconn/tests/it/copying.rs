//! COPY in both directions, and its ends.

use pgconn::{Connection, CopyState, Event, Format, Progress, SendError, TransactionStatus};

use crate::{DEADLINE, connect, error, next, query, rows, tags, until_ready};

/// Sends all that is encoded; the events that came meanwhile.
async fn flush(connection: &mut Connection) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let progress = tokio::time::timeout(DEADLINE, connection.flush_or_next()).await;
        match progress.expect("neither sent nor received in time").unwrap() {
            Progress::Flushed => return events,
            Progress::Event(event) => events.push(event),
        }
    }
}

async fn start_copy(connection: &mut Connection, sql: &str) {
    connection.query(sql).unwrap();
    match next(connection).await {
        Event::CopyInResponse(format) => assert_eq!(format.overall, Format::Text),
        event => panic!("{event:?}"),
    }
    assert_eq!(connection.copy_state(), CopyState::In);
}

#[tokio::test]
async fn copy_in_then_out_returns_the_same_bytes() {
    let mut connection = connect().await;
    query(&mut connection, "create temp table t (i int, s text)").await;
    start_copy(&mut connection, "copy t from stdin").await;
    connection.copy_data(b"1\to").unwrap();
    connection.copy_data(b"ne\n2\t\\N\n").unwrap();
    connection.copy_done().unwrap();
    assert!(!connection.is_quiet());
    let (events, _) = until_ready(&mut connection).await;
    assert_eq!(tags(&events), ["COPY 2"]);
    assert!(connection.is_quiet());

    connection.query("copy t to stdout").unwrap();
    let (events, _) = until_ready(&mut connection).await;
    assert!(matches!(&events[0], Event::CopyOutResponse(format) if format.columns.len() == 2));
    let data: Vec<u8> = events
        .iter()
        .filter_map(|event| match event {
            Event::CopyData { data, more: false } => Some(data.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(data, b"1\tone\n2\t\\N\n");
    assert!(events.contains(&Event::CopyDone));
    assert_eq!(tags(&events), ["COPY 2"]);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn copy_fail_ends_a_copy_nobody_has_data_for() {
    let mut connection = connect().await;
    query(&mut connection, "create temp table t (i int)").await;
    start_copy(&mut connection, "copy t from stdin; select 1").await;
    connection.copy_fail("no inline data").unwrap();
    assert_eq!(connection.copy_data(b"1\n"), Err(SendError::NotInCopy));
    let (events, status) = until_ready(&mut connection).await;
    let report = error(&events);
    assert_eq!(report.sqlstate, "57014");
    assert!(report.message.to_string().contains("no inline data"));
    assert_eq!(status, TransactionStatus::Idle);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn error_in_the_middle_of_copy_is_seen_while_sending() {
    let mut connection = connect().await;
    query(&mut connection, "create temp table t (i int)").await;
    start_copy(&mut connection, "copy t from stdin").await;
    connection.copy_data(b"not a number\n").unwrap();
    let line = b"1\n".repeat(5000);
    let mut events = Vec::new();
    // The server goes on swallowing data, so only reading tells that it is in vain.
    while !events.iter().any(|event| matches!(event, Event::Error(_))) {
        connection.copy_data(&line).unwrap();
        events.extend(flush(&mut connection).await);
    }
    assert_eq!(error(&events).sqlstate, "22P02");
    assert_eq!(connection.copy_data(&line), Err(SendError::NotInCopy));
    if connection.ready_owed() > 0 {
        until_ready(&mut connection).await;
    }
    assert!(connection.is_quiet());
    let (events, _) = query(&mut connection, "select count(*) from t").await;
    assert_eq!(rows(&events), [[Some("0".to_owned())]]);
}

#[tokio::test]
async fn server_that_talks_back_during_copy_does_not_deadlock() {
    let mut connection = connect().await;
    let sql = "create temp table t (s text);
        create function pg_temp.echo() returns trigger language plpgsql as
            $$ begin raise notice '%', new.s; return new; end $$;
        create trigger echo before insert on t for each row execute function pg_temp.echo()";
    query(&mut connection, sql).await;
    start_copy(&mut connection, "copy t from stdin").await;
    // Both directions carry far more than the sockets hold.
    let mut row = vec![b'x'; 20_000];
    row.push(b'\n');
    let mut notices = 0;
    for _ in 0..1500 {
        connection.copy_data(&row).unwrap();
        if connection.pending_out() >= 256 * 1024 {
            notices += flush(&mut connection).await.len();
        }
    }
    connection.copy_done().unwrap();
    let (events, _) = until_ready(&mut connection).await;
    notices += events
        .iter()
        .filter(|event| matches!(event, Event::Notice(_)))
        .count();
    assert_eq!(notices, 1500);
    assert_eq!(tags(&events), ["COPY 1500"]);
}

#[tokio::test]
async fn data_beyond_the_write_buffer_has_to_wait() {
    let mut connection = connect().await;
    query(&mut connection, "create temp table t (s text)").await;
    start_copy(&mut connection, "copy t from stdin").await;
    connection.copy_data(&vec![b'x'; pgconn::COPY_BUFFER]).unwrap();
    assert!(matches!(
        connection.copy_data(b"x"),
        Err(SendError::BufferFull { .. })
    ));
    flush(&mut connection).await;
    connection.copy_data(b"x\n").unwrap();
    connection.copy_done().unwrap();
    let (events, _) = until_ready(&mut connection).await;
    assert_eq!(tags(&events), ["COPY 1"]);
}

#[tokio::test]
async fn copy_by_the_extended_protocol_with_flush_stays_exact() {
    let mut connection = connect().await;
    query(&mut connection, "create temp table t (i int)").await;
    connection.parse("", "copy t from stdin", &[]).unwrap();
    connection.bind("", "", []).unwrap();
    connection.execute("", 0).unwrap();
    connection.flush().unwrap();
    while !matches!(next(&mut connection).await, Event::CopyInResponse(_)) {}
    connection.copy_data(b"1\n").unwrap();
    connection.copy_done().unwrap();
    connection.sync().unwrap();
    let (events, _) = until_ready(&mut connection).await;
    assert_eq!(tags(&events), ["COPY 1"]);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn sync_swallowed_by_copy_leaves_a_connection_that_is_never_quiet() {
    let mut connection = connect().await;
    query(&mut connection, "create temp table t (i int)").await;
    connection.parse("", "copy t from stdin", &[]).unwrap();
    connection.bind("", "", []).unwrap();
    connection.execute("", 0).unwrap();
    connection.sync().unwrap();
    while !matches!(next(&mut connection).await, Event::CopyInResponse(_)) {}
    assert_eq!(connection.ready_owed(), 0);
    connection.copy_fail("refused").unwrap();
    connection.sync().unwrap();
    let (events, _) = until_ready(&mut connection).await;
    assert_eq!(error(&events).sqlstate, "57014");
    assert!(!connection.is_quiet());
}
