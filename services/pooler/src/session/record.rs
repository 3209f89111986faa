//! What is kept of a session's last execution: little, since every open session keeps one.

use domain::id::ExecutionId;
use rpc::query::v1::{ExecutionOutcome, ServerMessage, SqlError};
use time::OffsetDateTime;

/// Bytes kept of an error's message.
const MOST_MESSAGE: usize = 120;

/// The last execution.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: ExecutionId,
    pub(super) start_time: OffsetDateTime,
    pub(super) end_time: Option<OffsetDateTime>,
    pub(super) outcome: ExecutionOutcome,
    pub(super) rows: i64,
    pub(super) error: Option<ShortError>,
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
