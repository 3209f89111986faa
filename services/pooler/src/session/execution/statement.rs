//! What the server says about a statement, event by event.

use bytes::Bytes;
use domain::access::Access;
use pgconn::{Event, Format, ServerError, ServerText};
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{CopyOutStarted, Notice, ParameterChanged, ResultColumns, SqlError, StatementCompleted};
use tonic::Status;

use super::result_set::{ResultLimit, ResultSet};
use super::{Execution, Feed, Interrupt, Lost, PipeWriter};
use crate::events::{columns, row_count, server_message};

/// COPY data handed to the connection at a time.
const COPY_PIECE: usize = 64 * 1024;

/// The statement that runs, or the whole message.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) index: i32,
    chars_before: usize,
    /// The current result set.
    pub(super) result: ResultSet,
    /// Rows are not wanted any more.
    dropping: bool,
    /// The large row that passes is not wanted.
    skipping: bool,
    pub(super) failed: bool,
    pub(super) tag: String,
    pub(super) tag_rows: Option<i64>,
}

impl Statement {
    pub(super) fn new(index: i32, chars_before: usize, limit: ResultLimit) -> Self {
        Self {
            index,
            chars_before,
            result: ResultSet::new(limit),
            ..Self::default()
        }
    }

    pub(super) fn drop_rows(&mut self) {
        self.dropping = true;
        self.skipping = true;
    }

    /// Whether the next row, with so many bytes of values, is to be sent.
    fn takes_row(&mut self, value_bytes: usize) -> bool {
        !self.dropping && self.result.takes(value_bytes)
    }
}

impl Execution<'_> {
    /// True for ReadyForQuery.
    pub(super) fn on_event(&mut self, event: Event) -> Result<bool, Lost> {
        let event = match &mut self.question {
            Some(question) => question.hear(event),
            None => Some(event),
        };
        let event = match event {
            Some(event) if self.access == Access::ReadOnly => self.preamble.hear(event)?,
            event => event,
        };
        let Some(event) = event else { return Ok(false) };
        match event {
            Event::DataRow(row) => {
                if self.takes_row(row.value_bytes()) {
                    self.writer.row(&row).map_err(pgconn::ConnectionError::from)?;
                    self.rows += 1;
                }
            }
            // Its size is known before its first byte is sent, so that none is begun that does not fit.
            Event::RowStart { value_bytes, .. } => {
                self.statement.skipping = !self.takes_row(value_bytes as usize);
                if !self.statement.skipping {
                    self.writer.row_start();
                }
            }
            Event::ValueStart { length } if !self.statement.skipping => self.writer.value_start(length),
            Event::ValueChunk(bytes) if !self.statement.skipping => self.writer.value_chunk(&bytes),
            Event::RowEnd if !self.statement.skipping => {
                self.writer.row_end();
                self.rows += 1;
            }
            Event::RowDescription(fields) => {
                self.statement.result = ResultSet::new(self.statement.result.limit());
                let columns = columns(&fields);
                self.event(Kind::Columns(ResultColumns {
                    statement_index: self.statement.index,
                    columns,
                }));
            }
            Event::CommandComplete(tag) => {
                // First: what is not committed after all is not complete either.
                self.end_fetching()?;
                self.completed(&tag);
            }
            Event::EmptyQuery => {
                self.end_fetching()?;
                self.completed(&ServerText::default());
            }
            Event::Error(error) => {
                self.sql_error(&error);
                self.end_fetching()?;
            }
            // Nothing more comes before the next Execute or a Sync.
            Event::PortalSuspended => return Ok(self.fetching),
            Event::Notice(notice) => {
                self.event(Kind::Notice(Notice {
                    message: Some(server_message(&notice)),
                }));
            }
            Event::ParameterStatus { name, value } => {
                self.backend.hold.parameter_changed();
                let (name, value) = (
                    name.to_str_lossy().into_owned(),
                    value.to_str_lossy().into_owned(),
                );
                self.event(Kind::ParameterChanged(ParameterChanged { name, value }));
            }
            Event::CopyOutResponse(format) => {
                let column_count = i32::try_from(format.columns.len()).unwrap_or(i32::MAX);
                let binary = format.overall == Format::Binary;
                let statement_index = self.statement.index;
                self.event(Kind::CopyOutStarted(CopyOutStarted {
                    statement_index,
                    binary,
                    column_count,
                }));
            }
            Event::CopyData { data, .. } => {
                if !self.statement.dropping {
                    self.writer.copy_data(&data);
                }
            }
            Event::CopyInResponse(_) => self.begin_copy()?,
            Event::CopyBothResponse(_) => return Err(Lost::Replication),
            Event::ReadyForQuery(_) => return Ok(true),
            Event::Notification { .. } => super::tell(self.watchers, event),
            // These acknowledge what we sent.
            Event::ValueStart { .. }
            | Event::ValueChunk(_)
            | Event::RowEnd
            | Event::CopyDone
            | Event::ParseComplete
            | Event::BindComplete
            | Event::CloseComplete
            | Event::NoData
            | Event::ParameterDescription(_) => {}
        }
        Ok(false)
    }

    /// Whether the next row is to be sent. The first one too many is where a result fails that must not be cut.
    fn takes_row(&mut self, value_bytes: usize) -> bool {
        let takes = self.statement.takes_row(value_bytes);
        if self.statement.result.has_failed() {
            self.interrupt(Interrupt::LimitExceeded);
        }
        takes
    }

    /// Writes an event. A flood of them after an interrupt, which nobody takes away, is dropped.
    fn event(&mut self, kind: Kind) {
        let has_room = self.output.as_ref().is_none_or(PipeWriter::has_room);
        if has_room || !self.writer.is_full() {
            self.writer.event(kind);
        }
    }

    fn completed(&mut self, tag: &ServerText) {
        let statement = &mut self.statement;
        statement.tag = tag.to_str_lossy().into_owned();
        statement.tag_rows = row_count(tag);
        let completed = StatementCompleted {
            statement_index: statement.index,
            command_tag: statement.tag.clone(),
            row_count: statement.tag_rows,
            truncated: statement.result.truncated,
        };
        // In a script sent as one message another result may follow.
        statement.index += 1;
        statement.result = ResultSet::new(statement.result.limit());
        self.event(Kind::StatementCompleted(completed));
    }

    pub(super) fn sql_error(&mut self, error: &ServerError) {
        let message = server_message(error);
        let script_position = match message.position {
            0 => 0,
            position => i32::try_from(self.statement.chars_before)
                .unwrap_or_default()
                .saturating_add(position),
        };
        let error = SqlError {
            statement_index: self.statement.index,
            message: Some(message),
            script_position,
        };
        self.statement.failed = true;
        self.error = Some(error.clone());
        // Small, and at most one for each statement: never dropped.
        self.writer.event(Kind::SqlError(error));
    }

    fn begin_copy(&mut self) -> Result<(), Lost> {
        if self.backend.connection.ready_owed() == 0 && !self.fetching {
            // The failed COPY lets the server see our goodbye.
            self.backend
                .connection
                .copy_fail("COPY FROM STDIN takes no parameters")?;
            return Err(Lost::SyncInDoubt);
        }
        let feed = if self.interrupt.is_some() {
            None
        } else {
            self.copy.begin()
        };
        match feed {
            Some(feed) => self.feed = feed,
            None => {
                self.backend
                    .connection
                    .copy_fail("no data was given for COPY FROM STDIN")?;
            }
        }
        Ok(())
    }

    /// True while the server still takes data. It ends a COPY itself when it finds an error.
    fn feeding(&mut self) -> bool {
        if self.backend.connection.copy_state() != pgconn::CopyState::In {
            self.feed = Feed::Nothing;
        }
        self.feed != Feed::Nothing
    }

    /// Hands inline data to the connection while it takes some.
    pub(super) fn feed_inline(&mut self) -> Result<(), Lost> {
        if !self.feeding() {
            return Ok(());
        }
        let Feed::Inline(rest) = &mut self.feed else {
            return Ok(());
        };
        let connection = &mut self.backend.connection;
        while !rest.is_empty() && connection.pending_out() < COPY_PIECE {
            let length = rest.len().min(COPY_PIECE);
            connection.copy_data(&rest.split_to(length))?;
        }
        if rest.is_empty() {
            self.feed = Feed::Nothing;
            connection.copy_done()?;
        }
        Ok(())
    }

    /// Hands a piece of a stream to the connection, or its end.
    pub(super) fn feed_piece(&mut self, piece: Option<Result<Bytes, Status>>) -> Result<(), Lost> {
        if !self.feeding() {
            return Ok(());
        }
        let connection = &mut self.backend.connection;
        match piece {
            Some(Ok(piece)) => connection.copy_data(&piece)?,
            Some(Err(_)) => {
                self.feed = Feed::Nothing;
                connection.copy_fail("the data broke off")?;
            }
            None => {
                self.feed = Feed::Nothing;
                connection.copy_done()?;
            }
        }
        Ok(())
    }
}
