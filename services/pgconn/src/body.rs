//! Reads the fields inside a message body, refusing to read past its end.

use bytes::{Buf, Bytes};

use crate::error::ProtocolError;
use crate::text::ServerText;

/// A cursor over one message body. Slices it returns share the body's memory.
pub(crate) struct Body {
    bytes: Bytes,
    /// The message's name, for errors.
    message: &'static str,
}

impl Body {
    pub(crate) fn new(message: &'static str, bytes: Bytes) -> Self {
        Self { bytes, message }
    }

    /// A body whose slices may be kept for long without keeping the read buffer alive.
    pub(crate) fn detached(message: &'static str, bytes: &[u8]) -> Self {
        Self::new(message, Bytes::copy_from_slice(bytes))
    }

    pub(crate) fn malformed(&self) -> ProtocolError {
        ProtocolError::Malformed {
            message: self.message,
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, ProtocolError> {
        self.bytes.try_get_u8().map_err(|_| self.malformed())
    }

    pub(crate) fn int16(&mut self) -> Result<i16, ProtocolError> {
        self.bytes.try_get_i16().map_err(|_| self.malformed())
    }

    /// A count of things, which the protocol sends as a 16-bit number that is never negative.
    pub(crate) fn count(&mut self) -> Result<usize, ProtocolError> {
        self.bytes
            .try_get_u16()
            .map(usize::from)
            .map_err(|_| self.malformed())
    }

    pub(crate) fn int32(&mut self) -> Result<i32, ProtocolError> {
        self.bytes.try_get_i32().map_err(|_| self.malformed())
    }

    pub(crate) fn oid(&mut self) -> Result<u32, ProtocolError> {
        self.bytes.try_get_u32().map_err(|_| self.malformed())
    }

    /// A NUL-terminated string.
    pub(crate) fn cstring(&mut self) -> Result<ServerText, ProtocolError> {
        let end = self
            .bytes
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| self.malformed())?;
        let text = self.bytes.split_to(end);
        self.bytes.advance(1);
        Ok(ServerText::new(text))
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.bytes.split_off(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), ProtocolError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }
}
