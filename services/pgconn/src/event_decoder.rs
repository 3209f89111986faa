//! Turns the bytes of a server into events, without doing any IO.
//!
//! Like the framing below it, the result depends only on the bytes, never on how they were split.

use bytes::{Buf, Bytes, BytesMut};

use crate::body::Body;
use crate::error::ProtocolError;
use crate::event::{BackendEvent, CopyFormat, Event, Field, Format, StartupEvent, TransactionStatus};
use crate::frame::{Direction, FrameDecoder, FrameLimits, FramePart};
use crate::row::{DataRowBody, RowPiece, RowStream};
use crate::server_error::ServerError;

/// What is being made from the pieces of a large message.
#[derive(Debug)]
enum Large {
    Row {
        stream: RowStream,
        chunk: Bytes,
    },
    Copy {
        left: usize,
    },
    /// An error or notice: the first bytes are kept, the rest is dropped.
    Report {
        tag: u8,
        kept: BytesMut,
    },
}

/// Decoder of one server's messages.
#[derive(Debug)]
pub(crate) struct EventDecoder {
    frames: FrameDecoder,
    report_limit: usize,
    large: Option<Large>,
}

impl EventDecoder {
    pub(crate) fn new(limits: FrameLimits) -> Self {
        Self {
            frames: FrameDecoder::new(Direction::Backend, limits),
            report_limit: limits.message,
            large: None,
        }
    }

    pub(crate) fn read_buffer(&mut self) -> &mut BytesMut {
        self.frames.read_buffer()
    }

    pub(crate) fn largest_buffer(&self) -> usize {
        self.frames.largest_buffer()
    }

    /// True when no byte is waiting and no message is half read.
    pub(crate) fn is_empty(&self) -> bool {
        self.large.is_none() && self.frames.is_empty()
    }

    /// The next event; `None` when more bytes are needed.
    pub(crate) fn next_event(&mut self) -> Result<Option<BackendEvent>, ProtocolError> {
        loop {
            if let Some(Large::Row { stream, chunk }) = &mut self.large
                && let Some(piece) = stream.next_piece(chunk)?
            {
                return Ok(Some(BackendEvent::Session(match piece {
                    RowPiece::Start { columns, value_bytes } => Event::RowStart { columns, value_bytes },
                    RowPiece::Value { length } => Event::ValueStart { length },
                    RowPiece::Chunk(chunk) => Event::ValueChunk(chunk),
                    RowPiece::End => Event::RowEnd,
                })));
            }
            let Some(part) = self.frames.next_part()? else {
                return Ok(None);
            };
            if let Some(event) = self.on_part(part)? {
                return Ok(Some(event));
            }
        }
    }

    fn on_part(&mut self, part: FramePart) -> Result<Option<BackendEvent>, ProtocolError> {
        match (part, self.large.take()) {
            (FramePart::Whole { tag, body }, None) => decode(tag, body).map(Some),
            (FramePart::Begin { tag, length }, None) => {
                self.large = Some(match tag {
                    b'D' => Large::Row {
                        stream: RowStream::new(length),
                        chunk: Bytes::new(),
                    },
                    b'd' => Large::Copy {
                        left: length as usize,
                    },
                    tag => Large::Report {
                        tag,
                        kept: BytesMut::new(),
                    },
                });
                Ok(None)
            }
            (FramePart::Chunk(chunk), Some(Large::Row { stream, .. })) => {
                self.large = Some(Large::Row { stream, chunk });
                Ok(None)
            }
            (FramePart::Chunk(data), Some(Large::Copy { left })) => {
                let left = left.saturating_sub(data.len());
                self.large = Some(Large::Copy { left });
                Ok(Some(BackendEvent::Session(Event::CopyData {
                    data,
                    more: left > 0,
                })))
            }
            (FramePart::Chunk(chunk), Some(Large::Report { tag, mut kept })) => {
                let room = self.report_limit.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
                self.large = Some(Large::Report { tag, kept });
                Ok(None)
            }
            (FramePart::End, Some(Large::Report { tag, kept })) => {
                report(tag, &kept.freeze(), true).map(Some)
            }
            (FramePart::End, Some(_)) => Ok(None),
            // The frame decoder opens and closes large messages in turn, so nothing else can come.
            (_, _) => Err(ProtocolError::Malformed { message: "DataRow" }),
        }
    }
}

fn report(tag: u8, body: &Bytes, truncated: bool) -> Result<BackendEvent, ProtocolError> {
    let report = Box::new(ServerError::decode(body, truncated)?);
    Ok(BackendEvent::Session(if tag == b'E' {
        Event::Error(report)
    } else {
        Event::Notice(report)
    }))
}

fn decode(tag: u8, bytes: Bytes) -> Result<BackendEvent, ProtocolError> {
    let event = match tag {
        b'D' => Event::DataRow(DataRowBody::new(bytes)),
        b'd' => Event::CopyData {
            data: bytes,
            more: false,
        },
        b'E' | b'N' => return report(tag, &bytes, false),
        b'R' | b'K' | b'v' => return decode_startup(tag, bytes).map(BackendEvent::Startup),
        b'T' => row_description(&bytes)?,
        b'C' => text_message(Body::new("CommandComplete", bytes))?,
        b'Z' => ready_for_query(Body::new("ReadyForQuery", bytes))?,
        b'A' => notification(&bytes)?,
        b'S' => parameter_status(&bytes)?,
        b'G' => Event::CopyInResponse(copy_format(Body::new("CopyInResponse", bytes))?),
        b'H' => Event::CopyOutResponse(copy_format(Body::new("CopyOutResponse", bytes))?),
        b'W' => Event::CopyBothResponse(copy_format(Body::new("CopyBothResponse", bytes))?),
        b't' => parameter_description(Body::new("ParameterDescription", bytes))?,
        b'I' => empty(Body::new("EmptyQueryResponse", bytes), Event::EmptyQuery)?,
        b'c' => empty(Body::new("CopyDone", bytes), Event::CopyDone)?,
        b'1' => empty(Body::new("ParseComplete", bytes), Event::ParseComplete)?,
        b'2' => empty(Body::new("BindComplete", bytes), Event::BindComplete)?,
        b'3' => empty(Body::new("CloseComplete", bytes), Event::CloseComplete)?,
        b'n' => empty(Body::new("NoData", bytes), Event::NoData)?,
        b's' => empty(Body::new("PortalSuspended", bytes), Event::PortalSuspended)?,
        // We never send a FunctionCall, so nothing answers one.
        _ => {
            return Err(ProtocolError::Unexpected {
                message: "FunctionCallResponse",
            });
        }
    };
    Ok(BackendEvent::Session(event))
}

fn empty(body: Body, event: Event) -> Result<Event, ProtocolError> {
    body.end()?;
    Ok(event)
}

fn text_message(mut body: Body) -> Result<Event, ProtocolError> {
    let tag = body.cstring()?;
    body.end()?;
    Ok(Event::CommandComplete(tag))
}

fn ready_for_query(mut body: Body) -> Result<Event, ProtocolError> {
    let status = match body.byte()? {
        b'I' => TransactionStatus::Idle,
        b'T' => TransactionStatus::InTransaction,
        b'E' => TransactionStatus::Failed,
        _ => return Err(body.malformed()),
    };
    body.end()?;
    Ok(Event::ReadyForQuery(status))
}

fn row_description(bytes: &[u8]) -> Result<Event, ProtocolError> {
    let mut body = Body::detached("RowDescription", bytes);
    let mut fields = Vec::new();
    for _ in 0..body.count()? {
        fields.push(Field {
            name: body.cstring()?,
            table_oid: body.oid()?,
            column: body.int16()?,
            type_oid: body.oid()?,
            type_size: body.int16()?,
            type_modifier: body.int32()?,
            format: format(&mut body)?,
        });
    }
    body.end()?;
    Ok(Event::RowDescription(fields))
}

fn format(body: &mut Body) -> Result<Format, ProtocolError> {
    match body.int16()? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        _ => Err(body.malformed()),
    }
}

fn copy_format(mut body: Body) -> Result<CopyFormat, ProtocolError> {
    let overall = match body.byte()? {
        0 => Format::Text,
        1 => Format::Binary,
        _ => return Err(body.malformed()),
    };
    let mut columns = Vec::new();
    for _ in 0..body.count()? {
        columns.push(format(&mut body)?);
    }
    body.end()?;
    Ok(CopyFormat { overall, columns })
}

fn notification(bytes: &[u8]) -> Result<Event, ProtocolError> {
    let mut body = Body::detached("NotificationResponse", bytes);
    let event = Event::Notification {
        process_id: body.int32()?,
        channel: body.cstring()?,
        payload: body.cstring()?,
    };
    body.end()?;
    Ok(event)
}

fn parameter_status(bytes: &[u8]) -> Result<Event, ProtocolError> {
    let mut body = Body::detached("ParameterStatus", bytes);
    let event = Event::ParameterStatus {
        name: body.cstring()?,
        value: body.cstring()?,
    };
    body.end()?;
    Ok(event)
}

fn parameter_description(mut body: Body) -> Result<Event, ProtocolError> {
    let mut types = Vec::new();
    for _ in 0..body.count()? {
        types.push(body.oid()?);
    }
    body.end()?;
    Ok(Event::ParameterDescription(types))
}

fn decode_startup(tag: u8, bytes: Bytes) -> Result<StartupEvent, ProtocolError> {
    match tag {
        b'R' => authentication(Body::new("Authentication", bytes)),
        b'K' => {
            let mut body = Body::detached("BackendKeyData", &bytes);
            let process_id = body.int32()?;
            let secret = body.rest();
            // Four bytes in protocol 3.0, up to 256 in 3.2.
            if !(4..=256).contains(&secret.len()) {
                return Err(body.malformed());
            }
            Ok(StartupEvent::BackendKeyData { process_id, secret })
        }
        _ => {
            let mut body = Body::new("NegotiateProtocolVersion", bytes);
            let newest_minor = body.int32()?;
            let mut unsupported = Vec::new();
            for _ in 0..body.int32()? {
                unsupported.push(body.cstring()?);
            }
            body.end()?;
            Ok(StartupEvent::NegotiateProtocolVersion {
                newest_minor,
                unsupported,
            })
        }
    }
}

fn authentication(mut body: Body) -> Result<StartupEvent, ProtocolError> {
    let event = match body.int32()? {
        0 => StartupEvent::AuthenticationOk,
        3 => StartupEvent::CleartextPassword,
        5 => {
            let mut salt = body.rest();
            let mut md5 = [0; 4];
            salt.try_copy_to_slice(&mut md5).map_err(|_| body.malformed())?;
            if !salt.is_empty() {
                return Err(body.malformed());
            }
            StartupEvent::Md5Password { salt: md5 }
        }
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                let mechanism = body.cstring()?;
                if mechanism.as_bytes().is_empty() {
                    break StartupEvent::Sasl { mechanisms };
                }
                mechanisms.push(mechanism);
            }
        }
        11 => StartupEvent::SaslContinue(body.rest()),
        12 => StartupEvent::SaslFinal(body.rest()),
        method => {
            body.rest();
            StartupEvent::OtherAuthentication { method }
        }
    };
    if body.is_empty() {
        Ok(event)
    } else {
        Err(body.malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: FrameLimits = FrameLimits { row: 30, message: 60 };

    fn events(bytes: &[u8], cuts: &[usize]) -> (Vec<Event>, Option<ProtocolError>) {
        let mut decoder = EventDecoder::new(SMALL);
        let (mut events, mut rest, mut cuts) = (Vec::<Event>::new(), bytes, cuts.iter().cycle());
        while !rest.is_empty() {
            let step = cuts.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
            decoder.read_buffer().extend_from_slice(&rest[..step]);
            rest = &rest[step..];
            loop {
                let event = match decoder.next_event() {
                    Ok(Some(BackendEvent::Session(event))) => event,
                    Ok(Some(BackendEvent::Startup(_))) => continue,
                    Ok(None) => break,
                    Err(error) => return (events, Some(error)),
                };
                match (events.last_mut(), event) {
                    (Some(Event::ValueChunk(before)), Event::ValueChunk(after)) => {
                        *before = [&before[..], &after[..]].concat().into();
                    }
                    (
                        Some(Event::CopyData { data, more }),
                        Event::CopyData {
                            data: after,
                            more: last,
                        },
                    ) if *more => {
                        *data = [&data[..], &after[..]].concat().into();
                        *more = last;
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        (events, None)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
    }

    fn row(values: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            let length = value.as_ref().map_or(-1, |value| value.len() as i32);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        message(b'D', &body)
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        prop_oneof![
            proptest::collection::vec(value, 0..6).prop_map(|values| row(&values)),
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(|data| message(b'd', &data)),
            "[a-z ]{0,100}".prop_map(|text| message(b'N', format!("SNOTICE\0M{text}\0\0").as_bytes())),
            "[a-z]{0,30}".prop_map(|tag| message(b'C', format!("{tag}\0").as_bytes())),
            Just(message(b'Z', b"I")),
            Just(message(b'1', b"")),
        ]
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_the_bytes_were_split(
            messages in proptest::collection::vec(any_message(), 0..20),
            cuts in proptest::collection::vec(1usize..120, 1..20),
        ) {
            let bytes = messages.concat();
            let (whole, error) = events(&bytes, &[bytes.len().max(1)]);
            prop_assert_eq!(error, None);
            let (split, error) = events(&bytes, &cuts);
            prop_assert_eq!(error, None);
            prop_assert_eq!(split, whole);
        }

        #[test]
        fn garbage_in_valid_frames_never_panics(
            messages in proptest::collection::vec(
                (proptest::sample::select(&b"RKSZTDCENAIGHWdc123nstvV"[..]),
                 proptest::collection::vec(any::<u8>(), 0..80)), 0..20),
            cuts in proptest::collection::vec(1usize..120, 1..20),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            prop_assert_eq!(events(&bytes, &[bytes.len().max(1)]), events(&bytes, &cuts));
        }
    }

    #[test]
    fn a_huge_notice_is_cut_and_the_stream_goes_on() {
        let text = format!("SNOTICE\0VNOTICE\0C01000\0M{}\0\0", "x".repeat(1000));
        let bytes = [message(b'N', text.as_bytes()), message(b'Z', b"T")].concat();
        let (events, error) = events(&bytes, &[7]);
        assert_eq!(error, None);
        let [
            Event::Notice(notice),
            Event::ReadyForQuery(TransactionStatus::InTransaction),
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert!(notice.truncated);
        assert!(notice.message.as_bytes().starts_with(b"xxx"));
        assert!(notice.message.as_bytes().len() < SMALL.message);
    }

    #[test]
    fn column_names_that_are_not_utf8_are_kept() {
        let body = [&1u16.to_be_bytes()[..], b"\xff\0", &[0; 18]].concat();
        let (events, error) = events(&message(b'T', &body), &[3]);
        assert_eq!(error, None);
        let [Event::RowDescription(fields)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(fields[0].name.as_bytes(), b"\xff");
    }
}
