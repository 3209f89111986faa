//! A value much larger than any message passes piece by piece.

use e2e::memory::GrowthSampler;
use e2e::{Client, Running};
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecuteRequest, ExecutionOutcome, Script, value};

use crate::worlds::alone;

const MEBIBYTE: u64 = 1024 * 1024;
/// What API and pooler may grow by.
const MOST_GROWTH: u64 = 64 * MEBIBYTE;
/// The largest message gRPC clients accept unless told otherwise.
const LARGEST_MESSAGE: usize = 4 * 1024 * 1024;

#[allow(clippy::disallowed_methods, reason = "a test has no configuration of its own")]
fn size() -> u64 {
    // PostgreSQL allows a value just under 1 GiB, and copies it a few times to send it.
    match std::env::var_os("PGMOOR_LONG_TESTS") {
        Some(value) if value == "1" => 1000 * MEBIBYTE,
        _ => 64 * MEBIBYTE,
    }
}

/// Reads a one-cell result; returns the cell's bytes, checked to be all `x` and in order.
async fn read_cell(client: &Client, session: &str, sql: &str) -> u64 {
    let request = ExecuteRequest {
        session: session.to_owned(),
        script: Some(Script {
            sql: sql.to_owned(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let mut stream = client.query().execute(request).await.unwrap().into_inner();
    let (mut received, mut stated, mut last, mut finished) = (0_u64, None, false, None);
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.as_bytes().len() < LARGEST_MESSAGE);
        for event in message.events().unwrap() {
            match event.kind {
                Some(Kind::ValueChunk(chunk)) => {
                    assert!(!last, "a piece after the last one");
                    assert_eq!(u64::try_from(chunk.offset).unwrap(), received);
                    assert!(chunk.data.iter().all(|byte| *byte == b'x'));
                    received += chunk.data.len() as u64;
                    last = chunk.last;
                }
                Some(Kind::Rows(batch)) => {
                    for value in batch.rows.into_iter().flat_map(|row| row.values) {
                        let Some(value::Kind::Streamed(streamed)) = value.kind else {
                            panic!("the value came in its row")
                        };
                        stated = Some(u64::try_from(streamed.size).unwrap());
                    }
                }
                Some(Kind::Finished(end)) => finished = Some(end),
                _ => {}
            }
        }
    }
    assert!(last, "the last piece is marked");
    assert_eq!(stated, Some(received));
    assert_eq!(finished.unwrap().outcome(), ExecutionOutcome::Succeeded);
    received
}

#[tokio::test]
async fn cell_of_a_gigabyte_passes_with_flat_memory() {
    let world = alone().await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.balanced.open_session(&server).await.unwrap();
    // Both have seen a streamed value before they are measured.
    let warm_up = "SELECT repeat('x', 1048576)";
    for client in &caller.apis {
        assert_eq!(read_cell(client, &session.name, warm_up).await, MEBIBYTE);
    }
    let sampler = GrowthSampler::start(world.pids());
    let sql = format!("SELECT repeat('x', {})", size());
    assert_eq!(read_cell(&caller.balanced, &session.name, &sql).await, size());
    for (name, grown) in sampler.finish().await {
        assert!(grown < MOST_GROWTH, "{name} grew by {} MiB", grown / MEBIBYTE);
    }
    // The session is as good as before.
    let next = Running::start(
        &caller.balanced,
        ExecuteRequest {
            session: session.name.clone(),
            script: Some(Script {
                sql: "SELECT 1".to_owned(),
                ..Script::default()
            }),
            ..ExecuteRequest::default()
        },
    );
    assert_eq!(next.await.unwrap().finish().await.unwrap().value(), "1");
    caller.balanced.close_session(&session).await.unwrap();
}
