//! Simple and extended queries, errors, and what the server says by itself.

use pgconn::{Connection, ConnectionError, Event, Poison, Progress, TransactionStatus};

use crate::{connect, error, next, query, rows, tags, trust, until_active, until_ready};

#[tokio::test]
async fn several_statements_in_one_query_come_in_order_with_their_columns() {
    let mut connection = connect().await;
    let sql =
        "select 1 as a, null::aclitem as b; create temp table t (i int); insert into t values (1), (2);;";
    let (events, status) = query(&mut connection, sql).await;
    assert_eq!(tags(&events), ["SELECT 1", "CREATE TABLE", "INSERT 0 2"]);
    assert_eq!(status, TransactionStatus::Idle);
    let Event::RowDescription(fields) = &events[0] else {
        panic!("{events:?}")
    };
    let described: Vec<_> = fields.iter().map(|f| (f.name.to_string(), f.type_oid)).collect();
    assert_eq!(described, [("a".to_owned(), 23), ("b".to_owned(), 1033)]);
    assert_eq!(rows(&events), [[Some("1".to_owned()), None]]);
    let (events, _) = query(&mut connection, "").await;
    assert_eq!(events, [Event::EmptyQuery]);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn extended_query_takes_and_returns_text() {
    let mut connection = connect().await;
    connection
        .parse("s", "select $1::int + 1, $2::text, $3::text", &[0, 25])
        .unwrap();
    connection.describe_statement("s").unwrap();
    connection
        .bind("p", "s", [Some(&b"41"[..]), Some("ž".as_bytes()), None])
        .unwrap();
    connection.describe_portal("p").unwrap();
    connection.execute("p", 0).unwrap();
    connection.close_statement("s").unwrap();
    assert!(!connection.is_quiet());
    connection.sync().unwrap();
    let (events, status) = until_ready(&mut connection).await;
    assert_eq!(status, TransactionStatus::Idle);
    assert_eq!(events[0], Event::ParseComplete);
    assert_eq!(events[1], Event::ParameterDescription(vec![23, 25, 25]));
    assert!(matches!(&events[2], Event::RowDescription(fields) if fields.len() == 3));
    assert_eq!(events[3], Event::BindComplete);
    assert_eq!(
        rows(&events),
        [[Some("42".to_owned()), Some("ž".to_owned()), None]]
    );
    assert_eq!(events.last(), Some(&Event::CloseComplete));
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn portal_hands_out_rows_by_the_page() {
    let mut connection = connect().await;
    query(&mut connection, "begin").await;
    connection.parse("", "select generate_series(1, 3)", &[]).unwrap();
    connection.bind("p", "", []).unwrap();
    connection.execute("p", 2).unwrap();
    connection.flush().unwrap();
    let mut events = Vec::new();
    while events.last() != Some(&Event::PortalSuspended) {
        events.push(next(&mut connection).await);
    }
    assert_eq!(rows(&events).len(), 2);
    connection.execute("p", 2).unwrap();
    connection.close_portal("p").unwrap();
    connection.sync().unwrap();
    let (events, status) = until_ready(&mut connection).await;
    assert_eq!(rows(&events), [[Some("3".to_owned())]]);
    assert_eq!(tags(&events), ["SELECT 1"]);
    assert_eq!(status, TransactionStatus::InTransaction);
    assert!(!connection.is_quiet());
}

#[tokio::test]
async fn portal_outside_a_block_stays_open_until_sync() {
    let mut connection = connect().await;
    connection.parse("", "select generate_series(1, 9)", &[]).unwrap();
    connection.bind("", "", []).unwrap();
    for _ in 0..2 {
        connection.execute("", 2).unwrap();
        connection.flush().unwrap();
        let mut events = Vec::new();
        while events.last() != Some(&Event::PortalSuspended) {
            events.push(next(&mut connection).await);
        }
        assert_eq!(rows(&events).len(), 2);
        // No ReadyForQuery will come, and the connection is for nobody else.
        assert_eq!((connection.ready_owed(), connection.is_unsynced()), (0, true));
        assert!(!connection.is_quiet());
        assert!(connection.query("select 1").is_err());
    }
    connection.close_portal("").unwrap();
    connection.sync().unwrap();
    let (events, status) = until_ready(&mut connection).await;
    assert_eq!(
        (events, status),
        (vec![Event::CloseComplete], TransactionStatus::Idle)
    );
    assert!(!connection.is_unsynced() && connection.is_quiet());
    let (events, _) = query(&mut connection, "select 1").await;
    assert_eq!(rows(&events).len(), 1);
}

#[tokio::test]
async fn error_of_a_portal_is_followed_by_nothing_before_sync() {
    let mut connection = connect().await;
    let sql = "select 1 / (3 - i) from generate_series(1, 9) i";
    connection.parse("", sql, &[]).unwrap();
    connection.bind("", "", []).unwrap();
    connection.execute("", 2).unwrap();
    connection.flush().unwrap();
    while next(&mut connection).await != Event::PortalSuspended {}
    connection.execute("", 2).unwrap();
    connection.flush().unwrap();
    assert!(matches!(next(&mut connection).await, Event::Error(error) if error.sqlstate == "22012"));
    assert!(connection.is_unsynced());
    connection.sync().unwrap();
    let (events, status) = until_ready(&mut connection).await;
    assert_eq!((events, status), (vec![], TransactionStatus::Idle));
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn error_has_its_position_and_fails_the_transaction() {
    let mut connection = connect().await;
    let (_, status) = query(&mut connection, "begin").await;
    assert_eq!(status, TransactionStatus::InTransaction);
    let (events, status) = query(&mut connection, "select nothing_here").await;
    let report = error(&events);
    assert_eq!((report.sqlstate.as_str(), report.position), ("42703", Some(8)));
    assert_eq!(report.severity, "ERROR");
    assert_eq!(report.routine.as_ref().unwrap(), &"errorMissingColumn");
    assert!(report.line.is_some() && report.file.is_some());
    assert_eq!(status, TransactionStatus::Failed);
    assert_eq!(connection.transaction_status(), TransactionStatus::Failed);
    let (_, status) = query(&mut connection, "rollback").await;
    assert_eq!(status, TransactionStatus::Idle);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn constraint_violation_names_its_objects() {
    let mut connection = connect().await;
    let sql = "create temp table t (i int constraint positive check (i > 0)); insert into t values (-1)";
    let (events, _) = query(&mut connection, sql).await;
    let report = error(&events);
    assert_eq!(report.sqlstate, "23514");
    assert_eq!(report.constraint.as_ref().unwrap(), &"positive");
    assert_eq!(report.table.as_ref().unwrap(), &"t");
    assert!(report.schema.is_some() && report.detail.is_some());
}

#[tokio::test]
async fn pipelined_queries_are_answered_one_by_one() {
    let mut connection = connect().await;
    for i in 0..50 {
        connection.query(&format!("select {i}")).unwrap();
    }
    assert_eq!(connection.ready_owed(), 50);
    for i in 0..50 {
        assert!(!connection.is_quiet());
        let (events, _) = until_ready(&mut connection).await;
        assert_eq!(rows(&events), [[Some(i.to_string())]]);
    }
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn buffered_events_need_no_further_read() {
    let mut connection = connect().await;
    connection.query("select generate_series(1, 10000)").unwrap();
    let (mut reads, mut count) = (0, 0);
    'ready: loop {
        reads += 1;
        let mut event = Some(next(&mut connection).await);
        while let Some(current) = event {
            match current {
                Event::DataRow(_) => count += 1,
                Event::ReadyForQuery(_) => break 'ready,
                _ => {}
            }
            event = connection.next_buffered().unwrap();
        }
    }
    assert_eq!(count, 10_000);
    assert!(reads < 1000, "{reads} reads for 10000 rows");
}

#[tokio::test]
async fn notices_come_in_band_and_in_order() {
    let mut connection = connect().await;
    let sql = "select 1; do $$ begin raise notice 'watch %', 'out' using hint = 'duck'; end $$; select 2";
    let (events, _) = query(&mut connection, sql).await;
    let position = events
        .iter()
        .position(|event| matches!(event, Event::Notice(_)))
        .unwrap();
    let Event::Notice(notice) = &events[position] else {
        unreachable!()
    };
    assert_eq!(notice.message, "watch out");
    assert_eq!(notice.hint.as_ref().unwrap(), &"duck");
    assert_eq!(rows(&events[..position]), [[Some("1".to_owned())]]);
    assert_eq!(rows(&events[position..]), [[Some("2".to_owned())]]);
}

#[tokio::test]
async fn huge_notice_is_cut_and_the_connection_lives() {
    let mut connection = connect().await;
    let sql = "do $$ begin raise notice '%', repeat('x', 20000000); end $$";
    let (events, _) = query(&mut connection, sql).await;
    let Event::Notice(notice) = &events[0] else {
        panic!("{events:?}")
    };
    assert!(notice.truncated);
    let limit = pgconn::FrameLimits::default().message;
    assert!(notice.message.as_bytes().len() <= limit);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn notification_reaches_an_idle_listener() {
    let mut listener = connect().await;
    query(&mut listener, "listen news").await;
    assert_eq!(listener.try_next().unwrap(), None);
    let mut sender = connect().await;
    query(&mut sender, "select pg_notify('news', 'extra')").await;
    let Event::Notification {
        process_id,
        channel,
        payload,
    } = next(&mut listener).await
    else {
        panic!("not a notification")
    };
    assert_eq!(Some(process_id), sender.process_id());
    assert_eq!(
        (channel.to_string(), payload.to_string()),
        ("news".to_owned(), "extra".to_owned())
    );
    assert!(listener.is_quiet());
}

#[tokio::test]
async fn changed_setting_is_reported_and_remembered() {
    let mut connection = connect().await;
    let (events, _) = query(&mut connection, "set timezone = 'Asia/Tokyo'").await;
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::ParameterStatus { name, .. } if name == "TimeZone"))
    );
    assert_eq!(connection.parameters().get("TimeZone").unwrap(), &"Asia/Tokyo");
}

#[tokio::test]
async fn bytes_that_are_not_utf8_pass_through_an_ascii_database() {
    let mut config = trust();
    config.database = "ascii".to_owned();
    // With UTF8 the server would refuse to send such bytes.
    config.startup_parameters = vec![("client_encoding".to_owned(), "SQL_ASCII".to_owned())];
    let mut connection = Connection::connect(&config).await.unwrap();
    let (events, _) = query(&mut connection, "select E'\\xff\\xfe' as \"a\"").await;
    let Event::DataRow(row) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(row.values().collect::<Vec<_>>(), [Ok(Some(&b"\xff\xfe"[..]))]);

    let sql = "do $$ begin raise exception '%', E'\\xff' using column = E'\\xfd'; end $$";
    let (events, _) = query(&mut connection, sql).await;
    let report = error(&events);
    assert_eq!(report.message.as_bytes(), b"\xff");
    assert_eq!(report.column.as_ref().unwrap().as_bytes(), b"\xfd");

    query(
        &mut connection,
        "do $$ begin execute E'create temp table t (\"\\xfc\" int)'; end $$",
    )
    .await;
    let (events, _) = query(&mut connection, "select * from t").await;
    let Event::RowDescription(fields) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(fields[0].name.as_bytes(), b"\xfc");
}

#[tokio::test]
async fn terminated_backend_says_why_then_the_connection_is_poisoned() {
    let mut victim = connect().await;
    victim.query("select pg_sleep(600)").unwrap();
    let pid = victim.process_id().unwrap();
    let mut killer = connect().await;
    assert_eq!(victim.flush_or_next().await.unwrap(), Progress::Flushed);
    until_active(pid).await;
    query(&mut killer, &format!("select pg_terminate_backend({pid})")).await;
    loop {
        if let Event::Error(report) = next(&mut victim).await {
            assert_eq!(report.sqlstate, "57P01");
            assert!(report.is_fatal());
            break;
        }
    }
    assert!(!victim.is_quiet());
    assert!(matches!(victim.next().await, Err(ConnectionError::Closed)));
    assert!(matches!(
        victim.next().await,
        Err(ConnectionError::Poisoned {
            cause: Poison::Closed
        })
    ));
    let refused = victim.query("select 1");
    assert_eq!(
        refused,
        Err(pgconn::SendError::Poisoned {
            cause: Poison::Closed
        })
    );
}

#[tokio::test]
async fn idle_connection_whose_server_ended_it_is_found_out_before_reuse() {
    let mut victim = connect().await;
    let mut killer = connect().await;
    let pid = victim.process_id().unwrap();
    query(&mut killer, &format!("select pg_terminate_backend({pid})")).await;
    let deadline = tokio::time::Instant::now() + crate::DEADLINE;
    let report = loop {
        assert!(tokio::time::Instant::now() < deadline);
        match victim.try_next().unwrap() {
            Some(Event::Error(report)) => break report,
            Some(event) => panic!("{event:?}"),
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(report.sqlstate, "57P01");
    assert!(!victim.is_quiet());
}

#[tokio::test]
async fn next_may_be_dropped_at_any_point_without_losing_anything() {
    let mut connection = connect().await;
    connection
        // The server pauses now and then, so that there are moments to drop a future that waits.
        .query(
            "select i, repeat('x', 1000), case when i % 500 = 0 then pg_sleep(0.01) end \
             from generate_series(1, 5000) i",
        )
        .unwrap();
    let (mut count, mut dropped) = (0, 0);
    loop {
        let event = tokio::select! {
            biased;
            event = connection.next() => event.unwrap(),
            () = tokio::task::yield_now() => {
                dropped += 1;
                continue;
            }
        };
        match event {
            Event::DataRow(row) => {
                count += 1;
                let first = row.values().next().unwrap().unwrap().unwrap();
                assert_eq!(first, count.to_string().as_bytes());
            }
            Event::ReadyForQuery(_) => break,
            _ => {}
        }
    }
    assert_eq!(count, 5000);
    assert!(dropped > 0, "no future was dropped, so the test showed nothing");
}
