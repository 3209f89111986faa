//! Writes events one after the other into the bytes of an `ExecuteResponse`.
//!
//! Rows gather in one batch until something else happens, events gather in one message until it is full or somebody
//! asks for it. So a SELECT of one row is one message, and a million rows are a few hundred.

use bytes::{BufMut, Bytes, BytesMut};
use pgconn::{DataRowBody, ProtocolError};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use rpc::events::EncodedEvents;
use rpc::query::v1::ExecutionEvent;
use rpc::query::v1::execution_event::Kind;

use super::rows::{self, LargeRow};

/// A message is full at so many bytes. Larger messages cost memory, smaller ones time.
const FULL: usize = 48 * 1024;
/// Rows per message where the request states none.
const DEFAULT_PAGE: usize = 1000;

/// Keys of fields, as in [`rows`].
const EVENTS: u8 = 1 << 3 | 2;
const SEQUENCE: u8 = 1 << 3;
const ROWS: u8 = 4 << 3 | 2;
const VALUE_CHUNK: u8 = 5 << 3 | 2;
const COPY_DATA: u8 = 12 << 3 | 2;
const CHUNK_COLUMN: u8 = 1 << 3;
const CHUNK_OFFSET: u8 = 2 << 3;
const CHUNK_DATA: u8 = 3 << 3 | 2;
const CHUNK_LAST: u8 = 4 << 3;
const COPY_DATA_DATA: u8 = 1 << 3 | 2;

fn varint_len(value: u64) -> usize {
    encoded_len_varint(value)
}

/// The events of one execution that have not been taken yet.
#[derive(Debug)]
pub(crate) struct EventWriter {
    message: BytesMut,
    /// The body of a `RowBatch`.
    rows: BytesMut,
    large: Option<LargeRow>,
    rows_in_message: usize,
    page: usize,
    next: i64,
}

impl EventWriter {
    /// A writer whose messages hold at most `page` rows; 0 for our choice.
    pub(crate) fn new(page: usize) -> Self {
        Self::going_on(page, 1)
    }

    /// A writer of events after others of the same execution: its first has the number `next`.
    pub(crate) fn going_on(page: usize, next: i64) -> Self {
        let page = if page == 0 { DEFAULT_PAGE } else { page };
        Self {
            message: BytesMut::new(),
            rows: BytesMut::new(),
            large: None,
            rows_in_message: 0,
            page,
            next,
        }
    }

    /// True once there is enough to send.
    pub(crate) fn is_full(&self) -> bool {
        self.message.len() + self.rows.len() >= FULL || self.rows_in_message >= self.page
    }

    /// True where there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.message.is_empty() && self.rows.is_empty()
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> i64 {
        self.next - 1
    }

    /// The number of the next event.
    pub(crate) fn next_number(&self) -> i64 {
        self.next
    }

    /// What was written since the last time.
    pub(crate) fn take(&mut self) -> Option<EncodedEvents> {
        self.end_batch();
        self.rows_in_message = 0;
        (!self.message.is_empty())
            .then(|| EncodedEvents::from_encoded(std::mem::take(&mut self.message).freeze()))
    }

    /// Forgets what was not taken. Numbers already given are not given again.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.message.clear();
        self.rows_in_message = 0;
        self.large = None;
    }

    /// Writes an event other than those below.
    pub(crate) fn event(&mut self, kind: Kind) {
        self.end_batch();
        let sequence = if matches!(kind, Kind::Heartbeat(_)) {
            0
        } else {
            self.sequence()
        };
        let event = ExecutionEvent {
            sequence,
            kind: Some(kind),
        };
        let length = event.encoded_len();
        self.message.reserve(length + 11);
        self.message.put_u8(EVENTS);
        encode_varint(length as u64, &mut self.message);
        event.encode_raw(&mut self.message);
    }

    /// Writes a row.
    ///
    /// # Errors
    /// Where it lies about its lengths.
    pub(crate) fn row(&mut self, row: &DataRowBody) -> Result<(), ProtocolError> {
        rows::put_row(&mut self.rows, row)?;
        self.rows_in_message += 1;
        Ok(())
    }

    /// Begins a large row.
    pub(crate) fn row_start(&mut self) {
        self.large = Some(LargeRow::default());
    }

    /// Begins the next value of the large row.
    pub(crate) fn value_start(&mut self, length: Option<u32>) {
        if let Some(large) = &mut self.large {
            large.value_start(length);
        }
    }

    /// Takes the next bytes of that value.
    pub(crate) fn value_chunk(&mut self, bytes: &Bytes) {
        let Some(piece) = self.large.as_mut().and_then(|large| large.value_chunk(bytes)) else {
            return;
        };
        let column = u64::try_from(piece.column).unwrap_or_default();
        let offset = piece.offset as u64;
        let mut head = BytesMut::with_capacity(40);
        for (key, number) in [(CHUNK_COLUMN, column), (CHUNK_OFFSET, offset)] {
            if number != 0 {
                head.put_u8(key);
                encode_varint(number, &mut head);
            }
        }
        head.put_u8(CHUNK_DATA);
        encode_varint(bytes.len() as u64, &mut head);
        let tail: &[u8] = if piece.last { &[CHUNK_LAST, 1] } else { &[] };
        self.end_batch();
        self.raw_event(VALUE_CHUNK, &[&head, bytes, tail]);
    }

    /// Forgets a large row that is not complete.
    pub(crate) fn drop_large_row(&mut self) {
        self.large = None;
    }

    /// Ends the large row.
    pub(crate) fn row_end(&mut self) {
        if let Some(large) = self.large.take() {
            large.end(&mut self.rows);
            self.rows_in_message += 1;
        }
    }

    /// Writes data of a COPY.
    pub(crate) fn copy_data(&mut self, data: &[u8]) {
        self.end_batch();
        let mut head = BytesMut::with_capacity(11);
        head.put_u8(COPY_DATA_DATA);
        encode_varint(data.len() as u64, &mut head);
        self.raw_event(COPY_DATA, &[&head, data]);
    }

    fn sequence(&mut self) -> i64 {
        let sequence = self.next;
        self.next += 1;
        sequence
    }

    fn end_batch(&mut self) {
        if !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            self.raw_event(ROWS, &[&rows]);
            // Keeps the allocation for the next batch.
            self.rows = rows;
            self.rows.clear();
        }
    }

    /// An event whose kind is already encoded, in parts.
    fn raw_event(&mut self, key: u8, parts: &[&[u8]]) {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let sequence = self.sequence().unsigned_abs();
        let event = 1 + varint_len(sequence) + 1 + varint_len(body as u64) + body;
        let out = &mut self.message;
        out.reserve(event + 11);
        out.put_u8(EVENTS);
        encode_varint(event as u64, out);
        out.put_u8(SEQUENCE);
        encode_varint(sequence, out);
        out.put_u8(key);
        encode_varint(body as u64, out);
        for part in parts {
            out.put_slice(part);
        }
    }
}

#[cfg(test)]
mod tests;
