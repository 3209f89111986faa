//! Large values that came before their turn, kept until the row they belong to.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, Write as _};

use rpc::query::v1::ValueChunk;
use tempfile::SpooledTempFile;

use crate::error::ClientError;

/// A value up to this size stays in memory.
const IN_MEMORY_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// A value that was put aside.
#[derive(Debug)]
pub(crate) struct Spool {
    file: SpooledTempFile,
    /// The end of the value where it is the beginning of a character.
    rest: Vec<u8>,
    is_text: bool,
}

impl Spool {
    fn new() -> Self {
        Self {
            file: tempfile::spooled_tempfile(IN_MEMORY_BYTES),
            rest: Vec::new(),
            is_text: true,
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<(), ClientError> {
        self.file.write_all(data).map_err(ClientError::Spool)?;
        if self.is_text {
            self.look_at(data);
        }
        Ok(())
    }

    /// Follows UTF-8 across pieces, which are cut anywhere.
    fn look_at(&mut self, data: &[u8]) {
        let mut joined = std::mem::take(&mut self.rest);
        joined.extend_from_slice(data);
        if let Err(error) = std::str::from_utf8(&joined) {
            self.is_text = error.error_len().is_none();
            self.rest = joined.split_off(error.valid_up_to());
        }
    }

    /// True where the whole value is UTF-8.
    pub(crate) fn is_text(&self) -> bool {
        self.is_text && self.rest.is_empty()
    }

    /// Goes back to the beginning of the value.
    pub(crate) fn rewind(&mut self) -> Result<(), ClientError> {
        self.file.rewind().map_err(ClientError::Spool)
    }

    /// The next piece; empty at the end.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut piece = vec![0; READ_BYTES];
        let length = self.file.read(&mut piece).map_err(ClientError::Spool)?;
        piece.truncate(length);
        Ok(piece)
    }
}

/// The values of one row that were put aside, by column.
#[derive(Debug, Default)]
pub(crate) struct Spools(BTreeMap<usize, Spool>);

impl Spools {
    pub(crate) fn push(&mut self, chunk: &ValueChunk) -> Result<(), ClientError> {
        let column = usize::try_from(chunk.column_index).unwrap_or_default();
        self.0.entry(column).or_insert_with(Spool::new).push(&chunk.data)
    }

    /// The value of a column, from its beginning.
    pub(crate) fn take(&mut self, column: usize) -> Result<Option<Spool>, ClientError> {
        let Some(mut spool) = self.0.remove(&column) else {
            return Ok(None);
        };
        spool.rewind()?;
        Ok(Some(spool))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_recognised_across_pieces() {
        let mut spool = Spool::new();
        let text = "größer€".repeat(100);
        for piece in text.as_bytes().chunks(1) {
            spool.push(piece).unwrap();
        }
        assert!(spool.is_text());
        spool.push(&[0xe2, 0x82]).unwrap();
        assert!(!spool.is_text(), "it ends within a character");
        let mut spool = Spool::new();
        spool.push(b"a\xffb").unwrap();
        spool.push(b"c").unwrap();
        assert!(!spool.is_text());
    }
}
