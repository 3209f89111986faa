//! What is kept of a session's last execution: little, since every open session keeps one.

use domain::id::ExecutionId;
use domain::session::{ExecutionName, SessionName};
use rpc::query;
use rpc::query::v1::{ExecutionOutcome, ServerMessage, SqlError, TransactionStatus};
use time::OffsetDateTime;

use super::commit::{Commit, Known};
use crate::timestamp::timestamp;

/// Bytes kept of an error's message.
const MOST_MESSAGE: usize = 112;

/// The last execution.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: ExecutionId,
    pub(super) start_time: OffsetDateTime,
    pub(super) end_time: Option<OffsetDateTime>,
    pub(super) outcome: ExecutionOutcome,
    pub(super) rows: i64,
    pub(super) error: Option<ShortError>,
    pub(super) commit: Option<Commit>,
}

/// What is left of a session that has ended: its last execution, and the transaction as the server stated it last.
#[derive(Debug, Clone)]
pub(crate) struct LastExecution {
    pub(super) record: Record,
    pub(super) transaction: TransactionStatus,
    /// Its portal is open.
    pub(super) suspended: bool,
}

impl LastExecution {
    /// As clients see it, if it is the one they ask for; nothing is the last one, whichever that was.
    pub(crate) fn known(&self, session: SessionName, asked: Option<ExecutionId>) -> Option<Known> {
        let record = Some(&self.record).filter(|record| asked.is_none_or(|id| record.id == id))?;
        let name = ExecutionName {
            session,
            execution: record.id,
        };
        let running = record.end_time.is_none();
        Some(Known {
            name,
            execution: query::v1::Execution {
                name: name.to_string(),
                running,
                outcome: record.outcome.into(),
                row_count: record.rows,
                error: record.error.as_ref().map(ShortError::expand),
                start_time: Some(timestamp(record.start_time)),
                end_time: record.end_time.filter(|_| !self.suspended).map(timestamp),
                suspended: self.suspended,
                transaction_status: self.transaction.into(),
                commit: record.commit.as_ref().map(|commit| commit.describe(running)),
            },
            in_doubt: record
                .commit
                .as_ref()
                .filter(|_| !running)
                .and_then(Commit::in_doubt)
                .cloned(),
        })
    }

    /// Its portal is gone with the session.
    pub(crate) fn closed(self) -> Self {
        Self {
            suspended: false,
            ..self
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.record.end_time.is_some()
    }

    /// The COMMIT of an execution, if that is the last one.
    pub(crate) fn commit_of(&mut self, execution: ExecutionId) -> Option<&mut Commit> {
        let commit = self.record.commit.as_mut();
        commit.filter(|_| self.record.id == execution)
    }
}

/// The gist of an SQL error. Its events had the rest.
#[derive(Debug, Clone)]
pub(super) struct ShortError {
    sqlstate: Box<str>,
    message: Box<str>,
    statement_index: i32,
}

impl ShortError {
    pub(super) fn of(error: &SqlError) -> Self {
        let message = error.message.as_ref();
        let cut = |text: &str, most| text[..text.floor_char_boundary(most)].into();
        Self {
            sqlstate: cut(message.map_or("", |message| message.sqlstate.as_str()), 5),
            message: cut(
                message.map_or("", |message| message.message.as_str()),
                MOST_MESSAGE,
            ),
            statement_index: error.statement_index,
        }
    }

    pub(super) fn expand(&self) -> SqlError {
        SqlError {
            statement_index: self.statement_index,
            message: Some(ServerMessage {
                severity: "ERROR".to_owned(),
                sqlstate: self.sqlstate.to_string(),
                message: self.message.to_string(),
                ..ServerMessage::default()
            }),
            script_position: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_stays_within_its_256_bytes() {
        let error = SqlError {
            message: Some(ServerMessage {
                sqlstate: "42P01".to_owned(),
                message: "ü".repeat(10_000),
                ..ServerMessage::default()
            }),
            ..SqlError::default()
        };
        let short = ShortError::of(&error);
        assert_eq!(short.expand().message.unwrap().sqlstate, "42P01");
        assert!(size_of::<Record>() + short.sqlstate.len() + short.message.len() <= 256);
    }
}
