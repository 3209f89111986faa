//! The events of an execution gathered into one response.
//!
//! Invariant: the response stays below what one message may hold. Rows beyond 3 MiB are dropped and said to
//! be missing; the statements after them still run.

use std::mem;

use bytes::Bytes;
use domain::csv::{CsvColumn, CsvFormat, CsvWriter};
use prost::Message as _;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    Column, ExecutionEvent, Row, RunQueryResponse, ServerMessage, SqlError, StatementResult, Value,
    ValueChunk, value,
};

/// Most bytes of results and notices in a response.
const MAX_RESULT_BYTES: usize = 3 * 1024 * 1024;
/// Most statements whose results are in a response.
const MAX_RESULTS: usize = 10_000;
/// What a result costs besides its rows, columns and tag.
const RESULT_BYTES: usize = 32;
/// Most bytes of errors after the first.
const MAX_ERROR_BYTES: usize = 256 * 1024;
/// Most notices in a response.
const MAX_NOTICES: usize = 1000;
/// What the tags and lengths around a row or value cost at most.
const FRAMING_BYTES: usize = 8;

/// Types whose values are numbers (PostgreSQL's `pg_type.dat`): int8, int2, int4, oid, float4, float8,
/// numeric.
const NUMERIC_TYPES: [u32; 7] = [20, 21, 23, 26, 700, 701, 1700];

/// Gathers events.
#[derive(Debug)]
pub(super) struct Collector {
    csv: Option<CsvFormat>,
    current: StatementResult,
    writer: Option<CsvWriter>,
    /// Values that arrive in pieces, before their row, by column.
    streamed: Vec<(i32, Vec<u8>)>,
    response: RunQueryResponse,
    used: usize,
    errors_used: usize,
    finished: bool,
}

impl Collector {
    /// Results as columns and rows.
    pub(super) fn rows() -> Self {
        Self {
            csv: None,
            current: StatementResult::default(),
            writer: None,
            streamed: Vec::new(),
            response: RunQueryResponse::default(),
            used: 0,
            errors_used: 0,
            finished: false,
        }
    }

    /// Results as CSV.
    pub(super) fn csv(format: CsvFormat) -> Self {
        Self {
            csv: Some(format),
            ..Self::rows()
        }
    }

    /// Takes the next event.
    pub(super) fn take(&mut self, event: ExecutionEvent) {
        match event.kind {
            Some(Kind::Columns(columns)) => self.begin(columns.columns),
            Some(Kind::Rows(batch)) => batch.rows.into_iter().for_each(|row| self.row(row)),
            Some(Kind::ValueChunk(chunk)) => self.chunk(&chunk),
            Some(Kind::StatementCompleted(completed)) => {
                let mut result = mem::take(&mut self.current);
                result.statement_index = completed.statement_index;
                result.command_tag = completed.command_tag;
                result.row_count = completed.row_count;
                result.truncated |= completed.truncated;
                if let Some(writer) = self.writer.take() {
                    result.csv = writer.finish();
                }
                self.used += result.command_tag.len() + RESULT_BYTES;
                if self.used <= MAX_RESULT_BYTES && self.response.results.len() < MAX_RESULTS {
                    self.response.results.push(result);
                } else {
                    self.response.left_out_count += 1;
                }
            }
            Some(Kind::SqlError(error)) => self.error(error),
            Some(Kind::Notice(notice)) => self.notice(notice.message.unwrap_or_default()),
            // Made for readers of the stream: a COPY to standard output has no place in a response.
            Some(Kind::CopyData(_)) => self.current.truncated = true,
            Some(Kind::Committing(committing)) => self.response.transaction = committing.transaction,
            Some(Kind::Finished(finished)) => {
                self.response.outcome = finished.outcome;
                self.finished = true;
            }
            Some(
                Kind::Started(_) | Kind::Heartbeat(_) | Kind::CopyOutStarted(_) | Kind::ParameterChanged(_),
            )
            | None => {}
        }
    }

    /// The response; none where the events ended before the execution did.
    pub(super) fn finish(self) -> Option<RunQueryResponse> {
        self.finished.then_some(self.response)
    }

    fn begin(&mut self, columns: Vec<Column>) {
        self.streamed.clear();
        self.writer = None;
        let size: usize = columns
            .iter()
            .map(|column| column.encoded_len() + FRAMING_BYTES)
            .sum();
        // In CSV the names stand twice: as columns and as header.
        if self.used + 2 * size > MAX_RESULT_BYTES {
            self.current = StatementResult {
                truncated: true,
                ..StatementResult::default()
            };
            return;
        }
        if let Some(format) = &self.csv {
            let named: Vec<_> = columns
                .iter()
                .map(|column| CsvColumn {
                    name: column.name.clone(),
                    numeric: NUMERIC_TYPES.contains(&column.type_oid),
                })
                .collect();
            let writer = CsvWriter::new(format.clone(), &named);
            self.used += writer.len();
            self.writer = Some(writer);
        }
        self.used += size;
        self.current = StatementResult {
            columns,
            ..StatementResult::default()
        };
    }

    fn row(&mut self, mut row: Row) {
        let streamed = mem::take(&mut self.streamed);
        if self.current.truncated {
            return;
        }
        for (column, bytes) in streamed {
            let value = usize::try_from(column)
                .ok()
                .and_then(|column| row.values.get_mut(column));
            if let Some(value) = value {
                value.kind = Some(match String::from_utf8(bytes) {
                    Ok(text) => value::Kind::Text(text),
                    Err(error) => value::Kind::Binary(Bytes::from(error.into_bytes())),
                });
            }
        }
        let size = match self.writer {
            None => row.encoded_len() + FRAMING_BYTES,
            Some(_) => row.values.iter().map(most_csv_bytes).sum(),
        };
        if self.used + size > MAX_RESULT_BYTES {
            self.current.truncated = true;
            return;
        }
        match &mut self.writer {
            None => {
                self.used += size;
                self.current.rows.push(row);
            }
            Some(writer) => {
                let before = writer.len();
                let texts: Vec<_> = row.values.iter().map(text).collect();
                writer.row(texts.iter().map(Option::as_deref));
                self.used += writer.len() - before;
            }
        }
    }

    fn chunk(&mut self, chunk: &ValueChunk) {
        let held: usize = self.streamed.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.used + held + chunk.data.len() > MAX_RESULT_BYTES {
            self.current.truncated = true;
        }
        if self.current.truncated {
            self.streamed.clear();
            return;
        }
        match self.streamed.last_mut() {
            Some((column, bytes)) if *column == chunk.column_index => bytes.extend_from_slice(&chunk.data),
            _ => self.streamed.push((chunk.column_index, chunk.data.to_vec())),
        }
    }

    fn error(&mut self, error: SqlError) {
        // The statement that failed has no result of its own.
        self.current = StatementResult::default();
        self.writer = None;
        self.streamed.clear();
        let size = error.encoded_len() + FRAMING_BYTES;
        if self.response.errors.is_empty() || self.errors_used + size <= MAX_ERROR_BYTES {
            self.errors_used += size;
            self.response.errors.push(error);
        }
    }

    fn notice(&mut self, message: ServerMessage) {
        let size = message.encoded_len() + FRAMING_BYTES;
        if self.response.notices.len() < MAX_NOTICES && self.used + size <= MAX_RESULT_BYTES {
            self.used += size;
            self.response.notices.push(message);
        }
    }
}

/// What a value takes at most in CSV: in quotes, each of its own doubled, with a separator.
fn most_csv_bytes(value: &Value) -> usize {
    let bytes: &[u8] = match &value.kind {
        Some(value::Kind::Text(text)) => text.as_bytes(),
        // A byte that is not UTF-8 becomes a replacement character of three.
        Some(value::Kind::Binary(bytes)) => return 3 * bytes.len() + FRAMING_BYTES,
        _ => &[],
    };
    bytes.len() + bytes.iter().filter(|byte| **byte == b'"').count() + FRAMING_BYTES
}

fn text(value: &Value) -> Option<String> {
    match &value.kind {
        Some(value::Kind::Text(text)) => Some(text.clone()),
        Some(value::Kind::Binary(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Some(value::Kind::Null(_) | value::Kind::Streamed(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use domain::settings::CsvLineEnding;
    use rpc::query::v1::{
        ExecutionFinished, ExecutionOutcome, ResultColumns, RowBatch, StatementCompleted, StreamedValue,
        Transaction, TransactionCommitting,
    };

    use super::*;

    fn event(kind: Kind) -> ExecutionEvent {
        ExecutionEvent {
            sequence: 1,
            kind: Some(kind),
        }
    }

    fn columns(names: &[(&str, u32)]) -> ExecutionEvent {
        let column = |(name, type_oid): &(&str, u32)| Column {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            ..Column::default()
        };
        let columns = names.iter().map(column).collect();
        event(Kind::Columns(ResultColumns {
            statement_index: 0,
            columns,
        }))
    }

    fn value(text: Option<&str>) -> Value {
        let kind = text.map_or(value::Kind::Null(true), |text| value::Kind::Text(text.to_owned()));
        Value { kind: Some(kind) }
    }

    fn row(values: &[Option<&str>]) -> ExecutionEvent {
        let row = Row {
            values: values.iter().copied().map(value).collect(),
        };
        event(Kind::Rows(RowBatch { rows: vec![row] }))
    }

    fn completed() -> ExecutionEvent {
        event(Kind::StatementCompleted(StatementCompleted {
            command_tag: "SELECT 1".to_owned(),
            row_count: Some(1),
            ..StatementCompleted::default()
        }))
    }

    fn finished() -> ExecutionEvent {
        let outcome = ExecutionOutcome::Succeeded.into();
        event(Kind::Finished(ExecutionFinished {
            outcome,
            ..ExecutionFinished::default()
        }))
    }

    fn collected(mut collector: Collector, events: Vec<ExecutionEvent>) -> Option<RunQueryResponse> {
        events.into_iter().for_each(|event| collector.take(event));
        collector.finish()
    }

    #[test]
    fn csv_is_written_as_the_settings_say() {
        let format = CsvFormat {
            header: true,
            line_ending: CsvLineEnding::Lf,
            ..CsvFormat::default()
        };
        let events = vec![
            columns(&[("a", 23), ("b", 25)]),
            row(&[Some("1"), None]),
            completed(),
            finished(),
        ];
        let response = collected(Collector::csv(format), events).unwrap();
        assert_eq!(response.results[0].csv, "a,b\n1,\n");
        assert!(response.results[0].rows.is_empty());
    }

    #[test]
    fn rows_beyond_the_limit_are_said_to_be_missing() {
        let large = "x".repeat(1024 * 1024);
        let mut events = vec![columns(&[("a", 25)])];
        events.extend((0..5).map(|_| row(&[Some(&large)])));
        events.extend([completed(), columns(&[("b", 25)]), completed(), finished()]);
        let response = collected(Collector::rows(), events).unwrap();
        assert!(response.results[0].truncated);
        assert_eq!(response.results[0].rows.len(), 2);
        assert!(!response.results[1].truncated);
        assert!(response.encoded_len() < 4 * 1024 * 1024);
    }

    #[test]
    fn many_small_results_do_not_pass_the_limit() {
        let wide: Vec<_> = (0..1600).map(|_| ("?column?", 23)).collect();
        let wide_ones = (0..500).flat_map(|_| [columns(&wide), completed()]);
        let empty_ones = (0..20_000).map(|_| completed());
        let events = wide_ones.chain(empty_ones).chain([finished()]).collect();
        let response = collected(Collector::rows(), events).unwrap();
        assert!(
            response.encoded_len() < 4 * 1024 * 1024,
            "{}",
            response.encoded_len()
        );
        assert_eq!(response.results.len() as i64 + response.left_out_count, 20_500);
        assert!(response.results.iter().any(|result| result.truncated));
    }

    #[test]
    fn quotes_doubled_in_csv_do_not_pass_the_limit() {
        let quotes = "\"".repeat(1024 * 1024);
        let events = vec![
            columns(&[("a", 25)]),
            row(&[Some(&quotes)]),
            row(&[Some(&quotes)]),
            completed(),
            finished(),
        ];
        let response = collected(Collector::csv(CsvFormat::default()), events).unwrap();
        assert!(response.results[0].truncated);
        assert!(response.encoded_len() < 4 * 1024 * 1024);
    }

    #[test]
    fn streamed_value_stands_in_its_row() {
        let chunk = |data: &'static [u8], offset, last| {
            let data = Bytes::from_static(data);
            event(Kind::ValueChunk(ValueChunk {
                column_index: 1,
                offset,
                data,
                last,
            }))
        };
        let streamed = Value {
            kind: Some(value::Kind::Streamed(StreamedValue { size: 4 })),
        };
        let batch = RowBatch {
            rows: vec![Row {
                values: vec![value(Some("1")), streamed],
            }],
        };
        let events = vec![
            columns(&[("a", 23), ("b", 25)]),
            chunk(b"ab", 0, false),
            chunk(b"cd", 2, true),
            event(Kind::Rows(batch)),
            completed(),
            finished(),
        ];
        let response = collected(Collector::rows(), events).unwrap();
        assert_eq!(response.results[0].rows[0].values[1], value(Some("abcd")));
    }

    #[test]
    fn last_transaction_that_was_committed_is_told() {
        let committing = |xid| {
            event(Kind::Committing(TransactionCommitting {
                statement_index: 0,
                transaction: Some(Transaction {
                    xid,
                    ..Transaction::default()
                }),
            }))
        };
        let events = vec![committing(7), completed(), committing(8), finished()];
        let response = collected(Collector::rows(), events).unwrap();
        assert_eq!(response.transaction.map(|transaction| transaction.xid), Some(8));
    }

    #[test]
    fn events_that_break_off_are_no_response() {
        assert_eq!(
            collected(Collector::rows(), vec![columns(&[("a", 23)]), completed()]),
            None
        );
    }
}
