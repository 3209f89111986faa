//! Cuts a byte stream into protocol messages, in either direction, without doing any IO.
//!
//! A message ("frame") is a type byte, a length that counts itself, and a body (PostgreSQL manual, "Message
//! Formats"). The invariant: what comes out depends only on the bytes, never on how the network split them,
//! and no frame of a type that can be huge is ever held whole in memory once it is larger than
//! [`FrameLimits::row`].

use bytes::{Buf, Bytes, BytesMut};

/// Size of a fresh read buffer. One read of this size carries hundreds of ordinary rows.
pub const READ_BUFFER: usize = 128 * 1024;

/// Never read into less than this much space: a short read costs as many system calls as a long one.
const MIN_READ: usize = 32 * 1024;

/// PostgreSQL's own bound for a start-up packet (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_LIMIT: usize = 10_000;

/// Type byte plus length.
const HEADER: usize = 5;

/// Who wrote the bytes, which decides the message types that exist and those that may be huge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Server to client.
    Backend,
    /// Client to server, after start-up.
    Frontend,
    /// Client to server, first packet: it has no type byte. Reported with tag 0. Change the direction with
    /// [`FrameDecoder::set_direction`] once the start-up packet was accepted.
    Startup,
}

/// How large a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bodies up to this many bytes come whole; larger rows and COPY data come in pieces. Default 64 KiB.
    pub row: usize,
    /// Bound of every other message, in bytes. A larger ErrorResponse or NoticeResponse is cut to this
    /// length, anything else is an error. Default 1 MiB.
    pub message: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            row: 64 * 1024,
            message: 1024 * 1024,
        }
    }
}

/// The bytes are not PostgreSQL protocol. The stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type byte that does not exist in this direction.
    #[error("unknown message type 0x{tag:02x}")]
    UnknownType {
        /// The type byte.
        tag: u8,
    },
    /// A length below the smallest possible or above what a signed 32-bit number holds.
    #[error("impossible length {length} of message type 0x{tag:02x}")]
    BadLength {
        /// The type byte, 0 for a start-up packet.
        tag: u8,
        /// The length field as sent.
        length: u32,
    },
    /// A message that has to be held whole is larger than allowed.
    #[error("message type 0x{tag:02x} of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// The type byte, 0 for a start-up packet.
        tag: u8,
        /// Length of the body in bytes.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// A message, or a piece of one that is too large to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FramePart {
    /// A message with its whole body, a slice of the read buffer.
    Whole {
        /// Type byte, 0 for a start-up packet.
        tag: u8,
        /// Everything after the length.
        body: Bytes,
    },
    /// A large message begins; `length` bytes of body follow as chunks, then [`FramePart::End`].
    Begin {
        /// Type byte.
        tag: u8,
        /// Length of the body in bytes.
        length: u32,
    },
    /// The next bytes of a large body, never empty, never more than the read buffer holds.
    Chunk(Bytes),
    /// The large message is complete.
    End,
}

/// What to do with a body that exceeds the limit for whole bodies.
enum Oversize {
    Stream,
    Refuse,
}

/// Turns bytes into [`FramePart`]s.
///
/// Slices handed out share the read buffer: keeping one alive keeps up to [`READ_BUFFER`] bytes alive.
#[derive(Debug)]
pub struct FrameDecoder {
    direction: Direction,
    limits: FrameLimits,
    buffer: BytesMut,
    /// Size of the buffer's allocation: its `capacity` shrinks as messages are cut off its front.
    allocated: usize,
    largest_buffer: usize,
    /// Bytes of a large body still to come.
    streaming: Option<usize>,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new(direction: Direction, limits: FrameLimits) -> Self {
        Self {
            direction,
            limits,
            buffer: BytesMut::new(),
            allocated: 0,
            streaming: None,
            failed: None,
            largest_buffer: 0,
        }
    }

    /// Which way the bytes go from now on.
    pub fn set_direction(&mut self, direction: Direction) {
        self.direction = direction;
    }

    /// The buffer to append received bytes to, with spare room for a good read. Only append to it.
    pub fn read_buffer(&mut self) -> &mut BytesMut {
        let room = self.missing().max(MIN_READ);
        let oversized = self.allocated > READ_BUFFER && self.buffer.len() + room <= READ_BUFFER;
        if oversized || !self.buffer.try_reclaim(room) {
            // Slices of the old buffer are still in use (or it grew for one large message): leave it to
            // them and move the unread rest, at most an incomplete frame, to a fresh one.
            self.allocated = READ_BUFFER.max(self.buffer.len() + room);
            self.largest_buffer = self.largest_buffer.max(self.allocated);
            let mut fresh = BytesMut::with_capacity(self.allocated);
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
        &mut self.buffer
    }

    /// The next message or piece; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are not the protocol; every later call returns the same error.
    pub fn next_part(&mut self) -> Result<Option<FramePart>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let part = self.cut();
        if let Err(error) = part {
            self.failed = Some(error);
        }
        part
    }

    /// True between messages, with nothing buffered.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.streaming.is_none()
    }

    /// Capacity of the largest read buffer so far, in bytes: the proof that memory stays flat.
    pub fn largest_buffer(&self) -> usize {
        self.largest_buffer
    }

    fn cut(&mut self) -> Result<Option<FramePart>, FrameError> {
        if let Some(remaining) = self.streaming {
            return Ok(self.cut_chunk(remaining));
        }
        let Some((tag, header, length)) = self.header()? else {
            return Ok(None);
        };
        let (limit, oversize) = self.bound(tag)?;
        if length > limit {
            return match oversize {
                Oversize::Refuse => Err(FrameError::TooLong { tag, length, limit }),
                Oversize::Stream => {
                    self.buffer.advance(header);
                    self.streaming = Some(length);
                    // A length field has 32 bits, so this always fits.
                    Ok(Some(FramePart::Begin {
                        tag,
                        length: u32::try_from(length).unwrap_or(u32::MAX),
                    }))
                }
            };
        }
        if self.buffer.len() < header + length {
            return Ok(None);
        }
        self.buffer.advance(header);
        Ok(Some(FramePart::Whole {
            tag,
            body: self.buffer.split_to(length).freeze(),
        }))
    }

    fn cut_chunk(&mut self, remaining: usize) -> Option<FramePart> {
        if remaining == 0 {
            self.streaming = None;
            return Some(FramePart::End);
        }
        let length = remaining.min(self.buffer.len());
        if length == 0 {
            return None;
        }
        self.streaming = Some(remaining - length);
        Some(FramePart::Chunk(self.buffer.split_to(length).freeze()))
    }

    /// Tag, header size and body length of the frame at the front of the buffer.
    fn header(&self) -> Result<Option<(u8, usize, usize)>, FrameError> {
        let (tag, header) = match (self.direction, self.buffer.first()) {
            (Direction::Startup, _) => (0, HEADER - 1),
            (_, None) => return Ok(None),
            // Refuse a wrong type at its first byte: waiting for a length could take forever.
            (_, Some(&tag)) => (tag, HEADER),
        };
        self.bound(tag)?;
        let Some(field) = self.buffer.get(header - 4..header) else {
            return Ok(None);
        };
        let length = field
            .iter()
            .fold(0u32, |value, byte| (value << 8) | u32::from(*byte));
        if !(4..=i32::MAX as u32).contains(&length) {
            return Err(FrameError::BadLength { tag, length });
        }
        Ok(Some((tag, header, length as usize - 4)))
    }

    /// How long a body of this type may be to come whole, and what happens beyond.
    fn bound(&self, tag: u8) -> Result<(usize, Oversize), FrameError> {
        let FrameLimits { row, message } = self.limits;
        match (self.direction, tag) {
            (Direction::Startup, _) => Ok((STARTUP_LIMIT, Oversize::Refuse)),
            (Direction::Backend, b'D' | b'd') => Ok((row, Oversize::Stream)),
            (Direction::Backend, b'E' | b'N') => Ok((message, Oversize::Stream)),
            (Direction::Backend, _) if BACKEND_TYPES.contains(&tag) => Ok((message, Oversize::Refuse)),
            (Direction::Frontend, b'd' | b'Q' | b'P' | b'B' | b'F') => Ok((row, Oversize::Stream)),
            (Direction::Frontend, _) if FRONTEND_TYPES.contains(&tag) => Ok((message, Oversize::Refuse)),
            _ => Err(FrameError::UnknownType { tag }),
        }
    }

    /// Bytes without which nothing more can be cut.
    fn missing(&self) -> usize {
        if self.streaming.is_some() {
            return 1;
        }
        match self.header() {
            Ok(Some((tag, header, length))) => match self.bound(tag) {
                Ok((limit, _)) if length <= limit => (header + length).saturating_sub(self.buffer.len()),
                _ => 1,
            },
            _ => HEADER,
        }
    }
}

const BACKEND_TYPES: &[u8] = b"RKSZTCAIGHWc123nstvV";
const FRONTEND_TYPES: &[u8] = b"CDEHSXcfp";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parts with neighbouring chunks joined: what the bytes mean, whatever the split.
    fn meaning(parts: Vec<FramePart>) -> Vec<FramePart> {
        let mut joined: Vec<FramePart> = Vec::new();
        for part in parts {
            if let (Some(FramePart::Chunk(before)), FramePart::Chunk(after)) = (joined.last_mut(), &part) {
                *before = [&before[..], &after[..]].concat().into();
            } else {
                joined.push(part);
            }
        }
        joined
    }

    fn decode(
        direction: Direction,
        limits: FrameLimits,
        bytes: &[u8],
        cuts: &[usize],
    ) -> (Vec<FramePart>, Option<FrameError>) {
        let mut decoder = FrameDecoder::new(direction, limits);
        let (mut parts, mut rest, mut cuts) = (Vec::new(), bytes, cuts.iter().cycle());
        while !rest.is_empty() {
            let step = cuts.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
            decoder.read_buffer().extend_from_slice(&rest[..step]);
            rest = &rest[step..];
            loop {
                match decoder.next_part() {
                    Ok(Some(part)) => parts.push(part),
                    Ok(None) => break,
                    Err(error) => return (parts, Some(error)),
                }
            }
        }
        (parts, None)
    }

    fn encode(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, body) in frames {
            bytes.push(*tag);
            bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    const SMALL: FrameLimits = FrameLimits {
        row: 40,
        message: 200,
    };

    fn frames(tags: &'static [u8]) -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let frame = (
            proptest::sample::select(tags),
            proptest::collection::vec(any::<u8>(), 0..150),
        );
        proptest::collection::vec(frame, 0..20)
    }

    proptest! {
        #[test]
        fn parts_do_not_depend_on_how_the_bytes_were_split(
            frames in frames(b"DdENTCZSA123"),
            cuts in proptest::collection::vec(1usize..300, 1..20),
        ) {
            let bytes = encode(&frames);
            let (whole, error) = decode(Direction::Backend, SMALL, &bytes, &[bytes.len().max(1)]);
            prop_assert_eq!(error, None);
            let (split, error) = decode(Direction::Backend, SMALL, &bytes, &cuts);
            prop_assert_eq!(error, None);
            prop_assert_eq!(meaning(split), meaning(whole));
        }

        #[test]
        fn every_frame_comes_out_as_it_went_in(
            frames in frames(b"QPBdSHXcf"),
            cuts in proptest::collection::vec(1usize..300, 1..20),
        ) {
            let (parts, error) = decode(Direction::Frontend, SMALL, &encode(&frames), &cuts);
            prop_assert_eq!(error, None);
            let mut out = Vec::new();
            for part in parts {
                match part {
                    FramePart::Whole { tag, body } => {
                        let streamable = matches!(tag, b'Q' | b'P' | b'B' | b'd');
                        let limit = if streamable { SMALL.row } else { SMALL.message };
                        prop_assert!(body.len() <= limit);
                        out.push((tag, body.to_vec()));
                    }
                    FramePart::Begin { tag, length } => {
                        prop_assert!(length as usize > SMALL.row);
                        out.push((tag, Vec::new()));
                    }
                    FramePart::Chunk(chunk) => out.last_mut().unwrap().1.extend_from_slice(&chunk),
                    FramePart::End => {}
                }
            }
            prop_assert_eq!(out, frames);
        }

        #[test]
        fn garbage_never_panics_and_splits_do_not_change_the_verdict(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            cuts in proptest::collection::vec(1usize..50, 1..20),
        ) {
            for direction in [Direction::Backend, Direction::Frontend, Direction::Startup] {
                let whole = decode(direction, SMALL, &bytes, &[bytes.len().max(1)]);
                let split = decode(direction, SMALL, &bytes, &cuts);
                prop_assert_eq!(meaning(split.0), meaning(whole.0));
                prop_assert_eq!(split.1, whole.1);
            }
        }
    }

    #[test]
    fn absurd_lengths_are_typed_errors() {
        for length in [0u32, 3, 0x8000_0000, u32::MAX] {
            let bytes = [&[b'D'][..], &length.to_be_bytes()].concat();
            let (_, error) = decode(Direction::Backend, FrameLimits::default(), &bytes, &[1]);
            assert_eq!(error, Some(FrameError::BadLength { tag: b'D', length }));
        }
        let bytes = [&[b'T'][..], &0x7fff_ffffu32.to_be_bytes()].concat();
        let (_, error) = decode(Direction::Backend, FrameLimits::default(), &bytes, &[5]);
        assert!(matches!(
            error,
            Some(FrameError::TooLong {
                tag: b'T',
                limit: 1_048_576,
                ..
            })
        ));
        let (_, error) = decode(
            Direction::Startup,
            FrameLimits::default(),
            &20_000u32.to_be_bytes(),
            &[4],
        );
        assert!(matches!(error, Some(FrameError::TooLong { tag: 0, .. })));
    }

    #[test]
    fn a_wrong_type_is_refused_at_its_first_byte() {
        let (_, error) = decode(Direction::Backend, FrameLimits::default(), b"<", &[1]);
        assert_eq!(error, Some(FrameError::UnknownType { tag: b'<' }));
    }

    #[test]
    fn an_error_is_final() {
        let mut decoder = FrameDecoder::new(Direction::Backend, FrameLimits::default());
        decoder.read_buffer().extend_from_slice(b"<");
        let first = decoder.next_part();
        decoder.read_buffer().extend_from_slice(b"Z\0\0\0\x05I");
        assert_eq!(decoder.next_part(), first);
    }

    #[test]
    fn the_buffer_is_reused_when_nobody_holds_a_slice() {
        let mut decoder = FrameDecoder::new(Direction::Backend, FrameLimits::default());
        let frame = encode(&[(b'D', vec![7; 60_000])]);
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..100 {
            decoder.read_buffer().extend_from_slice(&frame);
            addresses.insert(decoder.buffer.as_ptr() as usize / (4 * READ_BUFFER));
            assert!(matches!(decoder.next_part(), Ok(Some(FramePart::Whole { .. }))));
        }
        assert!(addresses.len() <= 2, "{} allocations", addresses.len());
        assert!(decoder.largest_buffer() <= 2 * READ_BUFFER);
    }

    #[test]
    fn a_large_message_does_not_leave_a_large_buffer_behind() {
        let limits = FrameLimits::default();
        let mut decoder = FrameDecoder::new(Direction::Backend, limits);
        let frame = encode(&[(b'T', vec![7; limits.message])]);
        for piece in frame.chunks(1000) {
            decoder.read_buffer().extend_from_slice(piece);
            decoder.next_part().unwrap();
        }
        assert!(decoder.is_empty());
        assert!(decoder.read_buffer().capacity() <= 2 * READ_BUFFER);
    }
}
