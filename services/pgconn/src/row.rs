//! The values inside a DataRow, whole or as they stream past.
//!
//! A DataRow is a 16-bit count of values, then for each a 32-bit length (-1 for NULL) and that many bytes
//! (PostgreSQL manual, "Message Formats"). A small row is a [`DataRowBody`]; a large one goes through
//! [`RowStream`], which never holds more than the four bytes of one length.

use bytes::{Buf, Bytes};

use crate::error::ProtocolError;

/// The body of one DataRow, a slice of the read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRowBody(Bytes);

impl DataRowBody {
    /// Wraps the body of a DataRow message (what follows the length). Nothing is checked until it is read.
    pub fn new(body: Bytes) -> Self {
        Self(body)
    }

    /// The body as sent, for forwarding.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Bytes of its values together, without their lengths; NULL counts nothing.
    pub fn value_bytes(&self) -> usize {
        let columns = self
            .0
            .first_chunk::<2>()
            .map_or(0, |count| u16::from_be_bytes(*count));
        self.0.len().saturating_sub(2 + 4 * usize::from(columns))
    }

    /// The values from first to last, `None` for NULL. A body that lies about its lengths ends in one error.
    pub fn values(&self) -> DataRowValues<'_> {
        match self.0.split_first_chunk::<2>() {
            Some((count, rest)) => DataRowValues {
                left: u16::from_be_bytes(*count),
                rest,
                broken: false,
            },
            None => DataRowValues {
                left: 0,
                rest: &[],
                broken: true,
            },
        }
    }
}

/// Iterator of [`DataRowBody::values`].
#[derive(Debug, Clone)]
pub struct DataRowValues<'a> {
    left: u16,
    rest: &'a [u8],
    broken: bool,
}

impl<'a> DataRowValues<'a> {
    fn value(&mut self) -> Option<Option<&'a [u8]>> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        match i32::from_be_bytes(*length) {
            -1 => {
                self.rest = rest;
                Some(None)
            }
            length => {
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                self.rest = rest;
                Some(Some(value))
            }
        }
    }
}

impl<'a> Iterator for DataRowValues<'a> {
    type Item = Result<Option<&'a [u8]>, ProtocolError>;

    fn next(&mut self) -> Option<Self::Item> {
        const MALFORMED: ProtocolError = ProtocolError::Malformed { message: "DataRow" };
        if self.broken || (self.left == 0 && !self.rest.is_empty()) {
            (self.broken, self.left, self.rest) = (false, 0, &[]);
            return Some(Err(MALFORMED));
        }
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        match self.value() {
            Some(value) => Some(Ok(value)),
            None => {
                (self.left, self.rest) = (0, &[]);
                Some(Err(MALFORMED))
            }
        }
    }
}

/// A piece of a row that is too large to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowPiece {
    Start { columns: u16, value_bytes: u32 },
    Value { length: Option<u32> },
    Chunk(Bytes),
    End,
}

/// Cuts the body of a large DataRow into pieces.
#[derive(Debug)]
pub(crate) struct RowStream {
    /// Bytes of the body not yet consumed.
    body_left: u32,
    /// Values whose length was not read yet; `None` before the count was read.
    values_left: Option<u16>,
    /// Bytes of the current value still to come.
    value_left: u32,
    /// A count or length of which only some bytes arrived.
    field: [u8; 4],
    field_filled: usize,
    ended: bool,
}

impl RowStream {
    pub(crate) fn new(length: u32) -> Self {
        Self {
            body_left: length,
            values_left: None,
            value_left: 0,
            field: [0; 4],
            field_filled: 0,
            ended: false,
        }
    }

    /// The next piece made from `input`; `None` when it is used up and more is needed, or after the end.
    pub(crate) fn next_piece(&mut self, input: &mut Bytes) -> Result<Option<RowPiece>, ProtocolError> {
        const MALFORMED: ProtocolError = ProtocolError::Malformed { message: "DataRow" };
        if self.value_left > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let length = input.len().min(self.value_left as usize);
            let chunk = input.split_to(length);
            self.value_left -= length as u32;
            self.body_left = self.body_left.checked_sub(length as u32).ok_or(MALFORMED)?;
            return Ok(Some(RowPiece::Chunk(chunk)));
        }
        match self.values_left {
            None => {
                let Some(count) = self.field::<2>(input)? else {
                    return Ok(None);
                };
                let columns = u16::from_be_bytes(count);
                self.values_left = Some(columns);
                // What is left are the values, each after its length.
                let value_bytes = self.body_left.saturating_sub(4 * u32::from(columns));
                Ok(Some(RowPiece::Start { columns, value_bytes }))
            }
            Some(0) if self.ended => Ok(None),
            Some(0) if self.body_left == 0 => {
                self.ended = true;
                Ok(Some(RowPiece::End))
            }
            Some(0) => Err(MALFORMED),
            Some(left) => {
                let Some(field) = self.field::<4>(input)? else {
                    return Ok(None);
                };
                self.values_left = Some(left - 1);
                let length = match i32::from_be_bytes(field) {
                    -1 => None,
                    length => Some(u32::try_from(length).map_err(|_| MALFORMED)?),
                };
                self.value_left = length.unwrap_or(0);
                if self.value_left > self.body_left {
                    return Err(MALFORMED);
                }
                Ok(Some(RowPiece::Value { length }))
            }
        }
    }

    /// Collects a field of N bytes that may arrive in several pieces.
    fn field<const N: usize>(&mut self, input: &mut Bytes) -> Result<Option<[u8; N]>, ProtocolError> {
        let take = input.len().min(N - self.field_filled);
        self.body_left = self
            .body_left
            .checked_sub(take as u32)
            .ok_or(ProtocolError::Malformed { message: "DataRow" })?;
        self.field[self.field_filled..self.field_filled + take].copy_from_slice(&input[..take]);
        input.advance(take);
        self.field_filled += take;
        if self.field_filled < N {
            // A frame that ends inside a field would otherwise wait for bytes of the next frame.
            return if self.body_left == 0 {
                Err(ProtocolError::Malformed { message: "DataRow" })
            } else {
                Ok(None)
            };
        }
        self.field_filled = 0;
        let mut field = [0; N];
        field.copy_from_slice(&self.field[..N]);
        Ok(Some(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(values: &[Option<Vec<u8>>]) -> Bytes {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            match value {
                None => body.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(value) => {
                    body.extend_from_slice(&(value.len() as i32).to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        body.into()
    }

    /// Values as the stream reports them, and how it ended.
    fn stream(body: &Bytes, cuts: &[usize]) -> Result<Vec<Option<Vec<u8>>>, ProtocolError> {
        let mut stream = RowStream::new(body.len() as u32);
        let (mut rest, mut cuts) = (body.clone(), cuts.iter().cycle());
        let (mut values, mut columns, mut bytes, mut ended) = (Vec::new(), 0, 0, false);
        loop {
            let step = cuts.next().copied().unwrap_or(1).min(rest.len());
            let mut input = rest.split_to(step);
            while let Some(piece) = stream.next_piece(&mut input)? {
                match piece {
                    RowPiece::Start {
                        columns: count,
                        value_bytes,
                    } => (columns, bytes) = (count, value_bytes as usize),
                    RowPiece::Value { length } => values.push(length.map(|_| Vec::new())),
                    RowPiece::Chunk(chunk) => {
                        values
                            .last_mut()
                            .unwrap()
                            .as_mut()
                            .unwrap()
                            .extend_from_slice(&chunk);
                    }
                    RowPiece::End => ended = true,
                }
            }
            assert!(input.is_empty() || ended);
            if rest.is_empty() {
                break;
            }
        }
        if !ended {
            return Err(ProtocolError::Malformed { message: "DataRow" });
        }
        assert_eq!(values.len(), usize::from(columns));
        let held: usize = values.iter().flatten().map(Vec::len).sum();
        assert_eq!(
            (bytes, DataRowBody::new(body.clone()).value_bytes()),
            (held, held)
        );
        Ok(values)
    }

    proptest! {
        #[test]
        fn whole_and_streamed_rows_hold_the_same_values(
            values in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)), 0..10),
            cuts in proptest::collection::vec(1usize..30, 1..10),
        ) {
            let body = encode(&values);
            prop_assert_eq!(&stream(&body, &cuts).unwrap(), &values);
            let row = DataRowBody::new(body);
            let whole: Result<Vec<_>, _> = row.values().map(|v| v.map(|v| v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(whole.unwrap(), values);
        }

        #[test]
        fn both_readers_agree_on_garbage(
            body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(1usize..30, 1..10),
        ) {
            let body = Bytes::from(body);
            let row = DataRowBody::new(body.clone());
            let whole: Result<Vec<_>, _> = row.values().map(|v| v.map(|v| v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(stream(&body, &cuts).ok(), whole.ok());
        }
    }

    #[test]
    fn a_length_beyond_the_body_is_an_error_and_ends_the_iteration() {
        let row = DataRowBody::new(Bytes::from_static(&[0, 2, 0, 0, 0, 9, 1]));
        let values: Vec<_> = row.values().collect();
        assert_eq!(values, [Err(ProtocolError::Malformed { message: "DataRow" })]);
    }
}
