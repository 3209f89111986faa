//! Values too large to be held.

use futures::StreamExt as _;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecuteRequest, ExecutionOutcome, value};

use crate::support::{World, split};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn large_value_comes_in_pieces() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT 1, repeat('abcdefgh', 8 * 1024 * 1024), 'end'";
    let request = ExecuteRequest {
        script: Some(split(sql)),
        ..Default::default()
    };
    let mut stream = world.try_execute(session, request).await.unwrap();
    let (mut received, mut largest, mut rows, mut outcome) = (0, 0, Vec::new(), None);
    while let Some(message) = stream.next().await {
        let message = message.unwrap();
        largest = largest.max(message.as_bytes().len());
        for event in message.events().unwrap() {
            match event.kind.unwrap() {
                Kind::ValueChunk(chunk) => {
                    assert_eq!((chunk.column_index, chunk.offset as usize), (1, received));
                    let expected = b"abcdefgh".iter().cycle().skip(received % 8);
                    assert!(chunk.data.iter().eq(expected.take(chunk.data.len())));
                    received += chunk.data.len();
                    assert_eq!(chunk.last, received == 64 * MIB);
                }
                Kind::Rows(batch) => rows.extend(batch.rows),
                Kind::Finished(finished) => outcome = Some(finished.outcome()),
                _ => {}
            }
        }
    }
    assert_eq!((received, outcome), (64 * MIB, Some(ExecutionOutcome::Succeeded)));
    assert!(largest < MIB, "a message of {largest} bytes");
    let values: Vec<_> = rows[0]
        .values
        .iter()
        .map(|value| value.kind.clone().unwrap())
        .collect();
    let value::Kind::Streamed(streamed) = &values[1] else {
        panic!("{values:?}")
    };
    assert_eq!(streamed.size as usize, 64 * MIB);
    assert_eq!(values[2], value::Kind::Text("end".to_owned()));
}

#[tokio::test]
async fn many_rows_arrive_whole_and_in_order() {
    let world = World::new().await;
    let session = world.open().await;
    let run = world
        .run(
            session,
            "SELECT g, repeat('x', g % 50) FROM generate_series(1, 100000) g",
        )
        .await;
    let rows = run.rows();
    assert_eq!(rows.len(), 100_000);
    assert!(
        rows.iter()
            .enumerate()
            .all(|(index, row)| row[0].as_ref().unwrap() == &(index + 1).to_string())
    );
    assert!(run.messages < 1_000, "{} messages", run.messages);
}
