//! Rows in the encoding of the contract, written from the bytes of a DataRow.
//!
//! Lengths come before what they measure, so each row is looked at twice: once to add up, once to copy. A value is
//! never a Rust string; it is only checked for being UTF-8.

use bytes::{BufMut, BytesMut};
use pgconn::{DataRowBody, ProtocolError};
use prost::encoding::{encode_varint, encoded_len_varint};

/// Larger values are streamed before their row.
const MOST_INLINE_VALUE: usize = 256 * 1024;
/// Once a row holds so much, of the values that follow only small ones go with it.
const COMFORTABLE_ROW: usize = 1024 * 1024;
const SMALL_VALUE: usize = 1024;
/// Once a row holds so much, nothing more goes with it, so that its message stays below every usual limit of 4 MiB.
const MOST_INLINE_ROW: usize = 2 * 1024 * 1024;

/// Keys of fields: number and wire type (Protocol Buffers, "Encoding").
const LENGTH_DELIMITED_1: u8 = 1 << 3 | 2;
const VALUE_TEXT: u8 = 1 << 3 | 2;
const VALUE_BINARY: u8 = 2 << 3 | 2;
const VALUE_NULL: u8 = 3 << 3;
const VALUE_STREAMED: u8 = 4 << 3 | 2;
const STREAMED_SIZE: u8 = 1 << 3;

fn varint_len(length: usize) -> usize {
    encoded_len_varint(length as u64)
}

/// Length of a `Value` that holds `length` bytes of text, without its own key and length.
fn text_len(length: usize) -> usize {
    1 + varint_len(length) + length
}

const NULL_LEN: usize = 2;

/// A `values` field of a `Row`.
fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    out.put_u8(LENGTH_DELIMITED_1);
    match value {
        None => out.put_slice(&[NULL_LEN as u8, VALUE_NULL, 1]),
        Some(bytes) => {
            encode_varint(text_len(bytes.len()) as u64, out);
            let key = if std::str::from_utf8(bytes).is_ok() {
                VALUE_TEXT
            } else {
                VALUE_BINARY
            };
            out.put_u8(key);
            encode_varint(bytes.len() as u64, out);
            out.put_slice(bytes);
        }
    }
}

/// A `values` field that says that the value was streamed.
fn put_streamed(out: &mut BytesMut, size: usize) {
    let inner = 1 + varint_len(size);
    out.put_u8(LENGTH_DELIMITED_1);
    encode_varint((1 + varint_len(inner) + inner) as u64, out);
    out.put_u8(VALUE_STREAMED);
    encode_varint(inner as u64, out);
    out.put_u8(STREAMED_SIZE);
    encode_varint(size as u64, out);
}

/// Appends a row to the body of a `RowBatch`.
///
/// # Errors
/// Where the row lies about its lengths. Nothing is appended then.
pub(super) fn put_row(batch: &mut BytesMut, row: &DataRowBody) -> Result<(), ProtocolError> {
    let mut length = 0;
    for value in row.values() {
        let value = value?.map_or(NULL_LEN, |bytes| text_len(bytes.len()));
        length += 1 + varint_len(value) + value;
    }
    batch.reserve(length + 11);
    batch.put_u8(LENGTH_DELIMITED_1);
    encode_varint(length as u64, batch);
    for value in row.values() {
        put_value(batch, value?);
    }
    Ok(())
}

/// A row too large to be held by pgconn, which comes value by value and piece by piece.
#[derive(Debug, Default)]
pub(super) struct LargeRow {
    /// The body of the `Row` so far.
    row: BytesMut,
    /// The bytes so far of a value that goes with the row.
    value: BytesMut,
    /// Length of the current value.
    length: usize,
    /// Bytes of it that came.
    received: usize,
    streamed: bool,
    /// The current value, counting from 0, or how many there were between values.
    column: i32,
}

/// A piece of a value that is streamed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) column: i32,
    pub(super) offset: usize,
    pub(super) last: bool,
}

impl LargeRow {
    pub(super) fn value_start(&mut self, length: Option<u32>) {
        self.received = 0;
        self.streamed = false;
        let Some(length) = length else {
            put_value(&mut self.row, None);
            self.column += 1;
            return;
        };
        self.length = length as usize;
        let with_row = self.row.len() + self.length;
        let most = if with_row > MOST_INLINE_ROW {
            0
        } else if with_row > COMFORTABLE_ROW {
            SMALL_VALUE
        } else {
            MOST_INLINE_VALUE
        };
        self.streamed = self.length > most;
        if self.streamed {
            put_streamed(&mut self.row, self.length);
        } else if self.length == 0 {
            put_value(&mut self.row, Some(&[]));
            self.column += 1;
        }
    }

    /// Takes the next bytes of the current value. Returns where they belong if they are to be streamed.
    pub(super) fn value_chunk(&mut self, bytes: &[u8]) -> Option<Piece> {
        let offset = self.received;
        self.received += bytes.len();
        let last = self.received >= self.length;
        let column = self.column;
        if last {
            self.column += 1;
        }
        if self.streamed {
            return Some(Piece { column, offset, last });
        }
        if last && self.value.is_empty() {
            put_value(&mut self.row, Some(bytes));
            return None;
        }
        self.value.extend_from_slice(bytes);
        if last {
            put_value(&mut self.row, Some(&self.value));
            self.value.clear();
        }
        None
    }

    /// Appends the complete row to the body of a `RowBatch`.
    pub(super) fn end(self, batch: &mut BytesMut) {
        batch.reserve(self.row.len() + 11);
        batch.put_u8(LENGTH_DELIMITED_1);
        encode_varint(self.row.len() as u64, batch);
        batch.put_slice(&self.row);
    }
}
