//! Cells and COPY rows larger than any buffer.

use pgconn::frame::READ_BUFFER;
use pgconn::{Connection, Event, TlsMode};

use crate::cluster::cluster;
use crate::{connect, next, query};

#[tokio::test]
async fn cell_of_300_megabytes_passes_in_flat_memory() {
    const LENGTH: u32 = 300_000_000;
    let mut connection = connect().await;
    let sql = format!("select 1, repeat('x', {LENGTH}), null, 'end'");
    connection.query(&sql).unwrap();
    let (mut lengths, mut bytes, mut biggest, mut last) = (Vec::new(), 0u64, 0, Vec::new());
    loop {
        match next(&mut connection).await {
            Event::RowStart { columns, value_bytes } => assert_eq!((columns, value_bytes), (4, LENGTH + 4)),
            Event::ValueStart { length } => {
                lengths.push(length);
                last.clear();
            }
            Event::ValueChunk(chunk) => {
                bytes += chunk.len() as u64;
                biggest = biggest.max(chunk.len());
                last = chunk.to_vec();
            }
            Event::DataRow(_) => panic!("a row over the limit was held whole"),
            Event::RowEnd => assert_eq!(last, b"end"),
            Event::ReadyForQuery(_) => break,
            _ => {}
        }
    }
    assert_eq!(lengths, [Some(1), Some(LENGTH), None, Some(3)]);
    assert_eq!(bytes, u64::from(LENGTH) + 4);
    assert!(biggest <= READ_BUFFER, "chunk of {biggest} bytes");
    assert!(connection.largest_read_buffer() <= 2 * READ_BUFFER);
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn large_rows_arrive_complete_over_tls() {
    let mut connection = Connection::connect(&cluster().config("scram", TlsMode::Require))
        .await
        .unwrap();
    // Around the limit, so that whole and streamed rows alternate.
    connection
        .query("select repeat('x', 65500 + i) from generate_series(1, 100) i")
        .unwrap();
    let (mut whole, mut streamed, mut lengths, mut current) = (0, 0, Vec::new(), 0);
    loop {
        match next(&mut connection).await {
            Event::DataRow(row) => {
                whole += 1;
                lengths.push(row.values().next().unwrap().unwrap().unwrap().len());
            }
            Event::RowStart { .. } => current = 0,
            Event::ValueChunk(chunk) => current += chunk.len(),
            Event::RowEnd => {
                streamed += 1;
                lengths.push(current);
            }
            Event::ReadyForQuery(_) => break,
            _ => {}
        }
    }
    assert_eq!(lengths, (65_501..=65_600).collect::<Vec<_>>());
    assert!(whole > 0 && streamed > 0);
}

#[tokio::test]
async fn copy_row_of_10_megabytes_comes_in_pieces() {
    let mut connection = connect().await;
    connection
        .query("copy (select repeat('x', 10000000)) to stdout")
        .unwrap();
    let (mut bytes, mut pieces, mut ended) = (0, 0, false);
    loop {
        match next(&mut connection).await {
            Event::CopyData { data, more } => {
                assert!(!ended && data.len() <= READ_BUFFER);
                bytes += data.len();
                pieces += 1;
                ended = !more;
            }
            Event::ReadyForQuery(_) => break,
            _ => {}
        }
    }
    assert!(ended && pieces > 1);
    assert_eq!(bytes, 10_000_001);
}

#[tokio::test]
async fn large_statement_is_sent_whole() {
    let mut connection = connect().await;
    let text = "x".repeat(5_000_000);
    let (events, _) = query(&mut connection, &format!("select length('{text}')")).await;
    assert_eq!(crate::rows(&events), [[Some("5000000".to_owned())]]);
}

#[tokio::test]
async fn connection_ends_in_the_middle_of_a_large_result() {
    let mut connection = connect().await;
    connection.query("select repeat('x', 300000000)").unwrap();
    while !matches!(next(&mut connection).await, Event::ValueChunk(_)) {}
    assert!(!connection.is_quiet());
    // The server is still sending; it has to get to our goodbye all the same.
    connection.terminate(crate::DEADLINE).await.unwrap();
}
