use proptest::prelude::*;
use rpc::query::v1::value;
use rpc::query::v1::{
    CopyData, Heartbeat, Row, RowBatch, StatementCompleted, StreamedValue, Value, ValueChunk,
};

use super::*;

const MESSAGE_LIMIT: usize = 3_500_000;

fn data_row(values: &[Option<Vec<u8>>]) -> DataRowBody {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(bytes) => {
                body.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                body.extend(bytes);
            }
        }
    }
    DataRowBody::new(body.into())
}

fn expected(value: Option<&Vec<u8>>) -> Value {
    let kind = match value {
        None => value::Kind::Null(true),
        Some(bytes) => match String::from_utf8(bytes.clone()) {
            Ok(text) => value::Kind::Text(text),
            Err(_) => value::Kind::Binary(bytes.clone().into()),
        },
    };
    Value { kind: Some(kind) }
}

fn expected_row(values: &[Option<Vec<u8>>]) -> Row {
    Row {
        values: values.iter().map(|value| expected(value.as_ref())).collect(),
    }
}

/// A row as pgconn cuts a large one, in pieces of `cut` bytes; messages are taken as soon as they are full.
fn write_large(writer: &mut EventWriter, values: &[Option<Vec<u8>>], cut: usize) -> Vec<EncodedEvents> {
    let mut messages = Vec::new();
    writer.row_start();
    for value in values {
        writer.value_start(value.as_ref().map(|bytes| u32::try_from(bytes.len()).unwrap()));
        for piece in value.iter().flat_map(|bytes| bytes.chunks(cut)) {
            writer.value_chunk(&Bytes::copy_from_slice(piece));
            if writer.is_full() {
                messages.extend(writer.take());
            }
        }
    }
    writer.row_end();
    messages.extend(writer.take());
    messages
}

/// Puts a row together again as a client does.
fn read_large(messages: &[EncodedEvents]) -> Vec<Option<Vec<u8>>> {
    let mut streamed: Vec<(i32, Vec<u8>, bool)> = Vec::new();
    let mut rows = Vec::new();
    for event in messages.iter().flat_map(|message| message.events().unwrap()) {
        match event.kind.unwrap() {
            Kind::ValueChunk(chunk) => {
                if chunk.offset == 0 {
                    streamed.push((chunk.column_index, Vec::new(), false));
                }
                let (column, bytes, last) = streamed.last_mut().unwrap();
                assert_eq!(
                    (*column, bytes.len(), *last),
                    (chunk.column_index, chunk.offset as usize, false)
                );
                bytes.extend(&chunk.data);
                *last = chunk.last;
            }
            Kind::Rows(batch) => rows.extend(batch.rows),
            other => panic!("{other:?}"),
        }
    }
    let [row] = rows.as_slice() else {
        panic!("{} rows", rows.len())
    };
    let mut streamed = streamed.into_iter();
    let values = row
        .values
        .iter()
        .enumerate()
        .map(|(index, value)| match value.kind.clone().unwrap() {
            value::Kind::Text(text) => Some(text.into_bytes()),
            value::Kind::Binary(bytes) => Some(bytes.to_vec()),
            value::Kind::Null(_) => None,
            value::Kind::Streamed(StreamedValue { size }) => {
                let (column, bytes, last) = streamed.next().unwrap();
                assert_eq!((column as usize, bytes.len(), last), (index, size as usize, true));
                Some(bytes)
            }
        });
    values.collect()
}

fn cell() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        ".{0,200}".prop_map(|text| Some(text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Some),
    ]
}

proptest! {
    #[test]
    fn rows_decode_to_what_the_generated_encoder_would_write(
        rows in prop::collection::vec(prop::collection::vec(cell(), 0..6), 1..6)
    ) {
        let mut writer = EventWriter::new(0);
        for row in &rows {
            writer.row(&data_row(row)).unwrap();
        }
        let batch = RowBatch { rows: rows.iter().map(|row| expected_row(row)).collect() };
        let event = ExecutionEvent { sequence: 1, kind: Some(Kind::Rows(batch)) };
        prop_assert_eq!(writer.take().unwrap(), EncodedEvents::encode(vec![event]));
    }

    #[test]
    fn large_rows_survive(
        sizes in prop::collection::vec(prop_oneof![Just(None), (0..700_000_usize).prop_map(Some)], 1..6),
        cut in 1000..200_000_usize,
    ) {
        let values: Vec<_> = sizes.iter().map(|size| size.map(|size| vec![b'x'; size])).collect();
        let messages = write_large(&mut EventWriter::new(0), &values, cut);
        prop_assert!(messages.iter().all(|message| message.as_bytes().len() < MESSAGE_LIMIT));
        prop_assert_eq!(read_large(&messages), values);
    }
}

#[test]
fn other_events_are_encoded_as_generated() {
    let mut writer = EventWriter::new(0);
    let completed = Kind::StatementCompleted(StatementCompleted {
        command_tag: "SELECT 1".into(),
        ..Default::default()
    });
    writer.row(&data_row(&[None])).unwrap();
    writer.event(completed.clone());
    writer.event(Kind::Heartbeat(Heartbeat::default()));
    writer.copy_data(b"1\t2\n");
    let kinds = [
        (
            1,
            Kind::Rows(RowBatch {
                rows: vec![expected_row(&[None])],
            }),
        ),
        (2, completed),
        (0, Kind::Heartbeat(Heartbeat::default())),
        (
            3,
            Kind::CopyData(CopyData {
                data: Bytes::from_static(b"1\t2\n"),
            }),
        ),
    ];
    let events = kinds.map(|(sequence, kind)| ExecutionEvent {
        sequence,
        kind: Some(kind),
    });
    assert_eq!(writer.take().unwrap(), EncodedEvents::encode(events.to_vec()));
    assert!(writer.take().is_none());
}

#[test]
fn value_chunk_is_encoded_as_generated() {
    let mut writer = EventWriter::new(0);
    writer.row_start();
    writer.value_start(None);
    writer.value_start(Some(300_000));
    writer.value_chunk(&vec![1; 100_000].into());
    writer.take().unwrap();
    writer.value_chunk(&vec![2; 200_000].into());
    let chunk = ValueChunk {
        column_index: 1,
        offset: 100_000,
        data: vec![2; 200_000].into(),
        last: true,
    };
    let event = ExecutionEvent {
        sequence: 2,
        kind: Some(Kind::ValueChunk(chunk)),
    };
    assert_eq!(writer.take().unwrap(), EncodedEvents::encode(vec![event]));
}

#[test]
fn widest_row_still_fits_a_message() {
    // No server has so many columns; one that lies about it must not make us send what no client takes.
    let values = vec![Some(vec![b'x'; 1024]); 60_000];
    let messages = write_large(&mut EventWriter::new(0), &values, 100_000);
    assert!(
        messages
            .iter()
            .all(|message| message.as_bytes().len() < MESSAGE_LIMIT)
    );
    assert_eq!(read_large(&messages), values);
}

#[test]
fn message_is_full_at_its_page_or_its_size() {
    let mut writer = EventWriter::new(2);
    writer.row(&data_row(&[None])).unwrap();
    assert!(!writer.is_full());
    writer.row(&data_row(&[None])).unwrap();
    assert!(writer.is_full());
    writer.take().unwrap();
    writer.row(&data_row(&[Some(vec![b'x'; 60_000])])).unwrap();
    assert!(writer.is_full());
}

#[test]
fn row_that_lies_about_its_lengths_is_an_error() {
    let mut writer = EventWriter::new(0);
    let lie = DataRowBody::new(Bytes::from_static(&[0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 9, b'b']));
    assert!(writer.row(&lie).is_err());
    assert!(writer.is_empty());
}
