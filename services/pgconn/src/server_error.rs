//! An error or notice as the server reported it, with every field.
//!
//! Fields are those of the PostgreSQL manual, "Error and Notice Message Fields". Nothing but what the server
//! sent is in here, so showing it to the user who caused it reveals nothing else.

use std::fmt;

use bytes::Bytes;

use crate::body::Body;
use crate::error::ProtocolError;
use crate::text::ServerText;

/// A five-character SQLSTATE code (PostgreSQL manual, appendix "PostgreSQL Error Codes").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `internal_error`, also used when a server sent no valid code.
    pub const INTERNAL_ERROR: SqlState = SqlState(*b"XX000");

    /// Reads a code: five ASCII letters or digits.
    pub fn from_bytes(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter().all(u8::is_ascii_alphanumeric).then_some(Self(code))
    }

    /// The code as text, such as `28P01`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<&str> for SqlState {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

/// The body of an ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL, PANIC, WARNING, NOTICE, DEBUG, INFO or LOG, never translated.
    pub severity: ServerText,
    /// The error code; [`SqlState::INTERNAL_ERROR`] when the server sent none.
    pub sqlstate: SqlState,
    /// The primary message.
    pub message: ServerText,
    /// More about the problem.
    pub detail: Option<ServerText>,
    /// What to do about it.
    pub hint: Option<ServerText>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
    /// Where in [`internal_query`](Self::internal_query), in characters from 1.
    pub internal_position: Option<u32>,
    /// A statement the server made itself, such as one in a PL/pgSQL function.
    pub internal_query: Option<ServerText>,
    /// The call stack, innermost first.
    pub context: Option<ServerText>,
    /// Schema of the object concerned.
    pub schema: Option<ServerText>,
    /// Table concerned.
    pub table: Option<ServerText>,
    /// Column concerned.
    pub column: Option<ServerText>,
    /// Data type concerned.
    pub data_type: Option<ServerText>,
    /// Constraint concerned.
    pub constraint: Option<ServerText>,
    /// Source file of the server.
    pub file: Option<ServerText>,
    /// Line in [`file`](Self::file).
    pub line: Option<u32>,
    /// Function in [`file`](Self::file).
    pub routine: Option<ServerText>,
    /// The message was longer than [`FrameLimits::message`](crate::FrameLimits) and its end was dropped.
    pub truncated: bool,
}

impl ServerError {
    /// True when the server closes the connection after this error.
    pub fn is_fatal(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }

    /// Reads a message body; one that was cut short yields the fields that are there.
    pub(crate) fn decode(body: &Bytes, truncated: bool) -> Result<Self, ProtocolError> {
        let mut body = Body::detached("ErrorResponse", body);
        let mut error = ServerError {
            severity: ServerText::default(),
            sqlstate: SqlState::INTERNAL_ERROR,
            message: ServerText::default(),
            detail: None,
            hint: None,
            position: None,
            internal_position: None,
            internal_query: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            data_type: None,
            constraint: None,
            file: None,
            line: None,
            routine: None,
            truncated,
        };
        let mut localized_severity = ServerText::default();
        loop {
            let field = match body.byte() {
                Ok(0) | Err(_) if truncated => break,
                Ok(0) => {
                    body.end()?;
                    break;
                }
                field => field?,
            };
            let text = match body.cstring() {
                Err(_) if truncated => ServerText::new(body.rest()),
                text => text?,
            };
            let number = || text.as_str().and_then(|digits| digits.parse().ok());
            match field {
                b'S' => localized_severity = text,
                b'V' => error.severity = text,
                b'C' => error.sqlstate = SqlState::from_bytes(text.as_bytes()).unwrap_or(error.sqlstate),
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'P' => error.position = number(),
                b'p' => error.internal_position = number(),
                b'q' => error.internal_query = Some(text),
                b'W' => error.context = Some(text),
                b's' => error.schema = Some(text),
                b't' => error.table = Some(text),
                b'c' => error.column = Some(text),
                b'd' => error.data_type = Some(text),
                b'n' => error.constraint = Some(text),
                b'F' => error.file = Some(text),
                b'L' => error.line = number(),
                b'R' => error.routine = Some(text),
                // The manual asks clients to ignore fields they do not know.
                _ => {}
            }
        }
        if error.severity.as_bytes().is_empty() {
            error.severity = localized_severity;
        }
        Ok(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.severity, self.message, self.sqlstate)
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"SFEHLER\0VERROR\0C42601\0Msyntax error\0P15\0pNaN\0L1180\0Zfuture\0nkey\0\0";

    #[test]
    fn every_known_field_is_read_and_unknown_ones_are_ignored() {
        let error = ServerError::decode(&Bytes::from_static(BODY), false).unwrap();
        assert_eq!(error.severity, "ERROR");
        assert_eq!(error.sqlstate, "42601");
        assert_eq!(error.position, Some(15));
        assert_eq!(error.internal_position, None);
        assert_eq!(error.line, Some(1180));
        assert_eq!(error.constraint.as_ref().unwrap(), &"key");
        assert_eq!(error.to_string(), "ERROR: syntax error (42601)");
        assert!(!error.is_fatal());
    }

    #[test]
    fn an_old_server_without_the_plain_severity_is_understood() {
        let error = ServerError::decode(&Bytes::from_static(b"SFATAL\0C57P01\0\0"), false).unwrap();
        assert!(error.is_fatal());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept() {
        let error = ServerError::decode(&Bytes::from_static(b"M\xff\xfe\0\0"), false).unwrap();
        assert_eq!(error.message.as_bytes(), b"\xff\xfe");
        assert_eq!(error.message.to_str_lossy(), "\u{fffd}\u{fffd}");
        assert_eq!(error.sqlstate, SqlState::INTERNAL_ERROR);
    }

    #[test]
    fn a_body_cut_short_is_an_error_unless_we_cut_it() {
        for end in 0..BODY.len() {
            let cut = Bytes::from_static(&BODY[..end]);
            assert!(ServerError::decode(&cut, false).is_err(), "at {end}");
            assert!(ServerError::decode(&cut, true).unwrap().truncated);
        }
    }
}
