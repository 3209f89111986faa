//! The messages a [`Connection`] can send.
//!
//! Each method only encodes; the bytes leave when the connection is driven. The invariant: a method that
//! returns an error has sent nothing and changed nothing.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::connection::Connection;
use crate::encode::{self, Target};
use crate::error::SendError;

/// COPY data is refused while this many bytes wait to be sent.
pub const COPY_BUFFER: usize = 1024 * 1024;

impl Connection {
    fn encode(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if let Some(cause) = self.transport.poison() {
            return Err(SendError::Poisoned { cause });
        }
        encode(&mut self.transport.out)
    }

    fn encode_extended(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        self.encode(encode)?;
        self.state.on_extended();
        Ok(())
    }

    /// A simple query: any number of statements, answered by one ReadyForQuery.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent then. The same holds for all methods below.
    pub fn query(&mut self, sql: &str) -> Result<(), SendError> {
        self.state.may_query()?;
        self.encode(|out| encode::query(out, sql))?;
        self.state.on_query();
        Ok(())
    }

    /// Prepares one statement under a name, which may be empty. Types not given (or 0) the server infers.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn parse(&mut self, name: &str, sql: &str, parameter_types: &[u32]) -> Result<(), SendError> {
        self.encode_extended(|out| encode::parse(out, name, sql, parameter_types))
    }

    /// Makes a portal from a prepared statement. Parameters (`None` is NULL) and results are in text format.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn bind<'p>(
        &mut self,
        portal: &str,
        statement: &str,
        parameters: impl IntoIterator<Item = Option<&'p [u8]>>,
    ) -> Result<(), SendError> {
        self.encode_extended(|out| encode::bind(out, portal, statement, parameters))
    }

    /// Asks for a portal's columns.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn describe_portal(&mut self, portal: &str) -> Result<(), SendError> {
        self.encode_extended(|out| encode::describe(out, Target::Portal, portal))
    }

    /// Asks for a statement's parameter types and columns.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn describe_statement(&mut self, statement: &str) -> Result<(), SendError> {
        self.encode_extended(|out| encode::describe(out, Target::Statement, statement))
    }

    /// Runs a portal for at most `max_rows` rows; 0 means all.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn execute(&mut self, portal: &str, max_rows: u32) -> Result<(), SendError> {
        let max_rows = i32::try_from(max_rows).map_err(|_| SendError::TooLong { message: "Execute" })?;
        self.encode_extended(|out| encode::execute(out, portal, max_rows))
    }

    /// Forgets a prepared statement.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn close_statement(&mut self, statement: &str) -> Result<(), SendError> {
        self.encode_extended(|out| encode::close(out, Target::Statement, statement))
    }

    /// Forgets a portal.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn close_portal(&mut self, portal: &str) -> Result<(), SendError> {
        self.encode_extended(|out| encode::close(out, Target::Portal, portal))
    }

    /// Ends a group of extended-protocol messages, answered by one ReadyForQuery.
    ///
    /// A Sync sent before the server turned out to be in COPY FROM STDIN may be swallowed by it; the
    /// connection is then never quiet again. To run a COPY by the extended protocol, send
    /// [`Connection::flush`] first and the Sync after the statement has ended.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn sync(&mut self) -> Result<(), SendError> {
        self.encode(|out| {
            frontend::sync(out);
            Ok(())
        })?;
        self.state.on_sync();
        Ok(())
    }

    /// Asks the server to deliver what it has, without ending the group.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn flush(&mut self) -> Result<(), SendError> {
        self.encode(|out| {
            frontend::flush(out);
            Ok(())
        })
    }

    /// COPY data for the server; pieces need not end at row boundaries.
    ///
    /// # Errors
    /// [`SendError::NotInCopy`] also when the server has ended the COPY; [`SendError::BufferFull`] when
    /// [`COPY_BUFFER`] bytes wait already.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<(), SendError> {
        self.state.may_copy()?;
        let pending = self.pending_out();
        if pending >= COPY_BUFFER {
            return Err(SendError::BufferFull { pending });
        }
        self.encode(|out| encode::copy_data(out, data))
    }

    /// All COPY data was sent.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn copy_done(&mut self) -> Result<(), SendError> {
        self.state.may_copy()?;
        self.encode(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        self.state.on_copy_end();
        Ok(())
    }

    /// The COPY cannot be completed; the server makes it fail with `message`.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn copy_fail(&mut self, message: &str) -> Result<(), SendError> {
        self.state.may_copy()?;
        self.encode(|out| encode::copy_fail(out, message))?;
        self.state.on_copy_end();
        Ok(())
    }
}
