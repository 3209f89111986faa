//! Execution events as they are on the wire.
//!
//! The pooler writes them once, straight from PostgreSQL's bytes; the API hands them on without looking inside. So the
//! generated services carry [`EncodedEvents`] where the contract says `ExecuteResponse`; a client decodes them.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

use crate::query::v1::ExecutionEvent;

/// The encoded form of an `ExecuteResponse`: repeated [`ExecutionEvent`] in field 1.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncodedEvents(Bytes);

/// What [`EncodedEvents`] holds, decoded.
#[derive(Clone, PartialEq, Message)]
pub struct Events {
    /// One or more events.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<ExecutionEvent>,
}

impl EncodedEvents {
    /// Takes bytes that are the encoding of [`Events`].
    #[must_use]
    pub fn from_encoded(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Encodes events.
    #[must_use]
    pub fn encode(events: Vec<ExecutionEvent>) -> Self {
        Self(Events { events }.encode_to_vec().into())
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The events.
    ///
    /// # Errors
    /// Where the peer sent something that is not an `ExecuteResponse`.
    pub fn events(&self) -> Result<Vec<ExecutionEvent>, DecodeError> {
        Events::decode(self.0.clone()).map(|decoded| decoded.events)
    }
}

impl std::fmt::Debug for EncodedEvents {
    /// Rows are users' data and stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedEvents")
            .field("bytes", &self.0.len())
            .finish()
    }
}

impl Message for EncodedEvents {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Never reached: `merge` takes the message whole. Kept right for callers that merge field by field.
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn decode(mut buf: impl Buf) -> Result<Self, DecodeError> {
        Ok(Self(buf.copy_to_bytes(buf.remaining())))
    }

    fn merge(&mut self, mut buf: impl Buf) -> Result<(), DecodeError> {
        self.0 = buf.copy_to_bytes(buf.remaining());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::v1::Heartbeat;
    use crate::query::v1::execution_event::Kind;

    #[test]
    fn events_survive_forwarding_untouched() {
        let event = ExecutionEvent {
            sequence: 7,
            kind: Some(Kind::Heartbeat(Heartbeat::default())),
        };
        let sent = EncodedEvents::encode(vec![event.clone()]);
        let forwarded = EncodedEvents::decode(Bytes::from(sent.encode_to_vec())).unwrap();
        assert_eq!(forwarded, sent);
        assert_eq!(forwarded.events().unwrap(), [event]);
    }
}
