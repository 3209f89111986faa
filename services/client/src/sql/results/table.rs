//! Aligned columns, drawn in parts: the first part decides the widths, so that rows are shown while they
//! come.

use rpc::query::v1::value::Kind;
use rpc::query::v1::{Column, Row, Value, ValueChunk};

use super::is_numeric;
use crate::error::ClientError;
use crate::output::table::{Aligned, TableColumn};

/// A part has at most so many rows,
const PART_ROWS: usize = 500;
/// and about so many bytes.
const PART_BYTES: usize = 512 * 1024;
/// Of a large value, so much is shown.
const LARGE_SHOWN_BYTES: usize = 512;

/// A result set as a table.
#[derive(Debug)]
pub(crate) struct TableResults {
    tuples_only: bool,
    table: Option<Aligned>,
    part: Vec<Vec<Option<String>>>,
    part_bytes: usize,
    rows: u64,
    /// Beginnings of the large values of the row to come, by column.
    beginnings: Vec<(i32, Vec<u8>)>,
}

impl TableResults {
    pub(crate) fn new(tuples_only: bool) -> Self {
        Self {
            tuples_only,
            table: None,
            part: Vec::new(),
            part_bytes: 0,
            rows: 0,
            beginnings: Vec::new(),
        }
    }

    pub(super) fn columns(&mut self, columns: &[Column]) {
        let columns = columns
            .iter()
            .map(|column| TableColumn {
                name: column.name.clone(),
                numeric: is_numeric(column),
            })
            .collect();
        let table = Aligned::new(columns);
        self.table = Some(if self.tuples_only {
            table.without_header()
        } else {
            table
        });
        self.rows = 0;
    }

    pub(super) fn rows(&mut self, rows: &[Row], block: &mut Vec<u8>) -> Result<(), ClientError> {
        for row in rows {
            let cells: Vec<_> = row
                .values
                .iter()
                .enumerate()
                .map(|(index, value)| self.cell(index, value))
                .collect();
            self.beginnings.clear();
            self.part_bytes += cells.iter().flatten().map(String::len).sum::<usize>();
            self.part.push(cells);
            self.rows += 1;
            if self.part.len() >= PART_ROWS || self.part_bytes >= PART_BYTES {
                self.draw(block);
            }
        }
        Ok(())
    }

    fn cell(&self, index: usize, value: &Value) -> Option<String> {
        match value.kind.as_ref()? {
            Kind::Text(text) => Some(text.clone()),
            Kind::Binary(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Kind::Null(_) => None,
            Kind::Streamed(streamed) => {
                let found = self
                    .beginnings
                    .iter()
                    .find(|(column, _)| usize::try_from(*column) == Ok(index));
                let beginning = found.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
                Some(format!(
                    "{}… ({} bytes)",
                    beginning.unwrap_or_default(),
                    streamed.size
                ))
            }
        }
    }

    pub(super) fn chunk(&mut self, chunk: &ValueChunk) {
        if chunk.offset == 0 {
            // Cut between characters, so that none is shown broken.
            let mut end = chunk.data.len().min(LARGE_SHOWN_BYTES);
            while end > 0 && chunk.data.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
                end -= 1;
            }
            self.beginnings
                .push((chunk.column_index, chunk.data[..end].to_vec()));
        }
    }

    pub(super) fn end(&mut self, cut: bool, block: &mut Vec<u8>) {
        if let Some(table) = &self.table
            && (!self.part.is_empty() || table.is_untouched())
        {
            self.draw(block);
        }
        self.beginnings.clear();
        if self.table.take().is_some() && !self.tuples_only && !cut {
            block.extend_from_slice(footer(self.rows).as_bytes());
            block.push(b'\n');
        }
    }

    fn draw(&mut self, block: &mut Vec<u8>) {
        if let Some(table) = &mut self.table {
            block.extend_from_slice(table.part(&self.part).as_bytes());
        }
        self.part.clear();
        self.part_bytes = 0;
    }
}

/// How many rows there were, as psql says it.
pub(super) fn footer(rows: u64) -> String {
    if rows == 1 {
        "(1 row)\n".to_owned()
    } else {
        format!("({rows} rows)\n")
    }
}
