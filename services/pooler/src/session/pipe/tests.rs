use bytes::Bytes;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecutionEvent, Notice};

use super::super::transcript::ROOM;
use super::*;

fn message(bytes: usize) -> EncodedEvents {
    EncodedEvents::from_encoded(Bytes::from(vec![0; bytes]))
}

/// Events of these numbers.
fn events(numbers: std::ops::RangeInclusive<i64>) -> EncodedEvents {
    let event = |sequence| ExecutionEvent {
        sequence,
        kind: Some(Kind::Notice(Notice::default())),
    };
    EncodedEvents::encode(numbers.map(event).collect())
}

fn numbers(message: Option<Result<EncodedEvents, Status>>) -> Vec<i64> {
    let events = message.unwrap().unwrap().events().unwrap();
    events.iter().map(|event| event.sequence).collect()
}

#[tokio::test]
async fn slow_reader_leaves_no_room_until_it_reads() {
    let notify = Arc::new(Notify::new());
    let (writer, mut reader) = pipe(Arc::clone(&notify), false, 0);
    writer.push(message(ROOM), 1);
    assert!(!writer.has_room());
    reader.next().await.unwrap().unwrap();
    notify.notified().await;
    assert!(writer.has_room());
}

#[tokio::test]
async fn stream_ends_after_the_last_message() {
    let (writer, mut reader) = pipe(Arc::default(), false, 0);
    writer.push(message(1), 1);
    writer.end(Some((message(1), 2)));
    assert!(reader.next().await.unwrap().is_ok());
    assert!(reader.next().await.unwrap().is_ok());
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn writer_that_vanishes_is_an_error() {
    let (writer, mut reader) = pipe(Arc::default(), false, 0);
    drop(writer);
    assert!(reader.next().await.unwrap().is_err());
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn writer_learns_that_the_reader_is_gone() {
    let notify = Arc::new(Notify::new());
    let (writer, reader) = pipe(Arc::clone(&notify), false, 0);
    drop(reader);
    notify.notified().await;
    assert!(writer.reader_gone());
    writer.push(message(ROOM), 1);
    assert!(writer.has_room());
}

#[tokio::test]
async fn another_reader_goes_on_where_one_went_away() {
    let (writer, mut reader) = pipe(Arc::default(), true, 0);
    let recording = writer.recording();
    writer.push(events(1..=3), 3);
    writer.push(events(4..=5), 5);
    assert_eq!(numbers(reader.next().await), [1, 2, 3]);
    drop(reader);
    assert!(!writer.reader_gone() && writer.detached_since().is_some());
    // It had seen the first two.
    let mut next = recording.attach(2).unwrap();
    assert!(writer.detached_since().is_none());
    assert_eq!(numbers(next.next().await), [3]);
    assert_eq!(numbers(next.next().await), [4, 5]);
    writer.end(Some((events(6..=6), 6)));
    assert_eq!(numbers(next.next().await), [6]);
    assert!(next.next().await.is_none());
    // Also after the end, and from the beginning.
    let mut late = recording.attach(0).unwrap();
    assert_eq!(numbers(late.next().await), [1, 2, 3]);
}

#[tokio::test]
async fn reader_whose_place_is_taken_is_told() {
    let (writer, mut first) = pipe(Arc::default(), true, 0);
    writer.push(events(1..=1), 1);
    let mut second = writer.recording().attach(0).unwrap();
    let told = first.next().await.unwrap().unwrap_err();
    assert_eq!(told.code(), tonic::Code::Aborted);
    // That it goes away says nothing any more.
    drop(first);
    assert!(writer.detached_since().is_none());
    assert_eq!(numbers(second.next().await), [1]);
}
