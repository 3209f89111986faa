use domain::random::SeededRandom;
use rpc::events::EncodedEvents;
use rpc::query::v1::ExecutionEvent;

use super::*;
use crate::session::{PipeWriter, pipe};

/// Bytes of a message.
const MESSAGE: usize = 100 * 1024;

fn results(directory: &tempfile::TempDir, bytes: u64) -> Results {
    let random = Arc::new(SeededRandom::new(3));
    Results::new(SpoolSpace::new(directory.path().to_owned(), bytes, random))
}

fn execution(number: u64) -> ExecutionId {
    ExecutionId::generate(&SeededRandom::new(number))
}

fn push(writer: &PipeWriter, number: i64) {
    let notice = rpc::query::v1::Notice {
        message: Some(rpc::query::v1::ServerMessage {
            message: "x".repeat(MESSAGE),
            ..Default::default()
        }),
    };
    let event = ExecutionEvent {
        sequence: number,
        kind: Some(rpc::query::v1::execution_event::Kind::Notice(notice)),
    };
    writer.push(EncodedEvents::encode(vec![event]), number);
}

async fn numbers(stream: EventStream) -> Vec<i64> {
    let messages: Vec<_> = stream.collect().await;
    let events = messages
        .into_iter()
        .flat_map(|message| message.unwrap().events().unwrap());
    events.map(|event| event.sequence).collect()
}

/// Writes so many events that nobody reads, and ends.
async fn write_unread(results: &Results, id: ExecutionId, count: i64) -> Arc<Kept> {
    let (writer, reader) = pipe(Arc::default(), true, 0);
    let kept = results.keep(id, writer.recording());
    drop(reader);
    let spooling = kept.spool();
    let writing = async {
        for number in 1..=count {
            while !writer.has_room() {
                tokio::task::yield_now().await;
            }
            push(&writer, number);
        }
        writer.end(None);
    };
    tokio::join!(spooling, writing);
    kept
}

#[tokio::test]
async fn what_is_too_much_for_the_spool_is_gone_and_the_execution_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let plenty = results(&directory, 1 << 30);
    write_unread(&plenty, execution(1), 100).await;
    let read = plenty.attach(execution(1), 0).await.unwrap();
    assert_eq!(numbers(read).await, (1..=100).collect::<Vec<_>>());
    let little = results(&directory, 40 * MESSAGE as u64);
    write_unread(&little, execution(1), 100).await;
    let told = little.attach(execution(1), 0).await;
    assert!(matches!(told, Err(PoolerError::ResultExpired)));
    // The last of it is in memory.
    let read = little.attach(execution(1), 95).await.unwrap();
    assert_eq!(numbers(read).await, [96, 97, 98, 99, 100]);
}

#[tokio::test]
async fn oldest_results_are_forgotten_first() {
    let directory = tempfile::tempdir().unwrap();
    let results = results(&directory, 0);
    let each = 1024 * 1024;
    let fits = MOST_BYTES / each;
    for number in 0..fits as u64 + 20 {
        write_unread(&results, execution(number), (each / MESSAGE) as i64).await;
    }
    results.sweep(Instant::now());
    let left = results.by_execution.lock().len();
    assert!((fits - 2..fits + 10).contains(&left), "{left}");
    assert!(results.attach(execution(0), 0).await.is_err());
    assert!(results.attach(execution(fits as u64 + 19), 0).await.is_ok());
    results.sweep(Instant::now() + MEMORY + Duration::from_secs(1));
    assert!(results.by_execution.lock().is_empty());
}

#[tokio::test]
async fn what_was_read_and_reached_nobody_is_spooled_too() {
    let directory = tempfile::tempdir().unwrap();
    let results = results(&directory, 1 << 30);
    let (writer, mut reader) = pipe(Arc::default(), true, 0);
    let kept = results.keep(execution(1), writer.recording());
    for number in 1..=3 {
        push(&writer, number);
        reader.next().await.unwrap().unwrap();
    }
    drop(reader);
    let writing = async {
        for number in 4..=100 {
            while !writer.has_room() {
                tokio::task::yield_now().await;
            }
            push(&writer, number);
        }
        writer.end(None);
    };
    tokio::join!(kept.spool(), writing);
    let read = results.attach(execution(1), 1).await.unwrap();
    assert_eq!(numbers(read).await, (2..=100).collect::<Vec<_>>());
}
