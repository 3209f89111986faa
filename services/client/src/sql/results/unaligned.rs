//! Values with `|` between them and nothing else, as `psql -A` writes them. Not escaped: a value may hold a
//! `|`.

use rpc::query::v1::value::Kind;
use rpc::query::v1::{Column, Row, ValueChunk};

use super::Spools;
use crate::error::ClientError;
use crate::output::sink::Sink;

/// A result set without alignment.
#[derive(Debug)]
pub(crate) struct UnalignedResults {
    tuples_only: bool,
    rows: u64,
    /// Between the columns and the end of a result set.
    open: bool,
    spools: Spools,
    /// Values of the row to come that are written already.
    written: usize,
    /// True in the middle of a value that is written through.
    within: bool,
}

impl UnalignedResults {
    pub(crate) fn new(tuples_only: bool) -> Self {
        Self {
            tuples_only,
            rows: 0,
            open: false,
            spools: Spools::default(),
            written: 0,
            within: false,
        }
    }

    pub(super) fn columns(&mut self, columns: &[Column], block: &mut Vec<u8>) {
        (self.rows, self.open) = (0, true);
        if self.tuples_only {
            return;
        }
        for (index, column) in columns.iter().enumerate() {
            delimit(index, block);
            block.extend_from_slice(column.name.as_bytes());
        }
        block.push(b'\n');
    }

    pub(super) async fn rows(&mut self, rows: &[Row], out: &mut Sink) -> Result<(), ClientError> {
        for row in rows {
            for (index, value) in row.values.iter().enumerate().skip(self.written) {
                delimit(index, &mut out.block);
                match &value.kind {
                    Some(Kind::Text(text)) => out.block.extend_from_slice(text.as_bytes()),
                    Some(Kind::Binary(bytes)) => out.block.extend_from_slice(bytes),
                    Some(Kind::Null(_)) | None => {}
                    Some(Kind::Streamed(_)) => {
                        let Some(mut spool) = self.spools.take(index)? else {
                            continue;
                        };
                        loop {
                            let piece = spool.read()?;
                            if piece.is_empty() {
                                break;
                            }
                            out.block.extend_from_slice(&piece);
                            out.pass().await?;
                        }
                    }
                }
            }
            out.block.push(b'\n');
            self.written = 0;
            self.rows += 1;
        }
        Ok(())
    }

    pub(super) fn chunk(&mut self, chunk: &ValueChunk, block: &mut Vec<u8>) -> Result<(), ClientError> {
        let column = usize::try_from(chunk.column_index).unwrap_or_default();
        if column != self.written {
            return self.spools.push(chunk);
        }
        if !self.within {
            delimit(column, block);
            self.within = true;
        }
        block.extend_from_slice(&chunk.data);
        if chunk.last {
            self.within = false;
            self.written += 1;
        }
        Ok(())
    }

    pub(super) fn end(&mut self, cut: bool, block: &mut Vec<u8>) {
        if self.within || self.written > 0 {
            block.push(b'\n');
        }
        (self.within, self.written) = (false, 0);
        self.spools.clear();
        if std::mem::take(&mut self.open) && !self.tuples_only && !cut {
            block.extend_from_slice(super::table::footer(self.rows).as_bytes());
        }
    }
}

fn delimit(index: usize, block: &mut Vec<u8>) {
    if index > 0 {
        block.push(b'|');
    }
}
