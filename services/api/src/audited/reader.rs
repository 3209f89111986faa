//! Reads the names out of a request's first message.
//!
//! It is gone through as it arrives, byte by byte, whatever the order and the size of its fields; nothing of it is kept but the
//! names, and a field that is marked as secret is never looked at.

use std::sync::Arc;

use super::methods::{Shape, Wanted};
use super::names::{Found, Sought};

/// Bytes of a name.
const MOST_NAME_BYTES: u64 = 500;
/// Messages within messages that are looked into.
const MOST_LEVELS: usize = 32;

/// Goes through the first message of a request as it arrives.
#[derive(Debug)]
pub(super) struct NameReader {
    shapes: Arc<Vec<Shape>>,
    root: usize,
    /// The messages it is in, from the outermost, each with where it ends.
    levels: Vec<Level>,
    /// Groups (an encoding of old) it is in. Nothing in them is looked at.
    groups: usize,
    /// Bytes of the message so far.
    at: u64,
    step: Step,
    /// The fields of which there is only one, as they came: the place of the message they are in, and their number.
    places: Vec<(Option<usize>, u32)>,
    found: Found,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    shape: usize,
    end: u64,
    holder: Holder,
}

/// Whether there is only one such message.
#[derive(Debug, Clone, Copy)]
enum Holder {
    /// The request itself.
    Request,
    /// The one in this place.
    Place(usize),
    /// One of many.
    List,
}

#[derive(Debug)]
enum Step {
    /// Five bytes before the message: whether it is compressed, and its length.
    Header {
        bytes: [u8; 5],
        read: usize,
    },
    Key(Varint),
    Number(Varint),
    Length {
        sought: Option<Sought>,
        varint: Varint,
    },
    Skip(u64),
    Text {
        sought: Sought,
        left: u64,
        bytes: Vec<u8>,
    },
    Done,
}

#[derive(Debug, Clone, Copy, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Takes a byte in. The value, once it is whole; nothing valid is longer than ten bytes.
    fn push(&mut self, byte: u8) -> Option<Result<u64, ()>> {
        if self.shift >= 70 {
            return Some(Err(()));
        }
        self.value |= u64::from(byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
        self.shift += 7;
        (byte & 0x80 == 0).then_some(Ok(self.value))
    }
}

impl NameReader {
    pub(super) fn new(shapes: Arc<Vec<Shape>>, root: usize) -> Self {
        Self {
            shapes,
            root,
            levels: Vec::new(),
            groups: 0,
            at: 0,
            step: Step::Header {
                bytes: [0; 5],
                read: 0,
            },
            places: Vec::new(),
            found: Found::default(),
        }
    }

    /// What was found so far.
    pub(super) const fn found(&self) -> &Found {
        &self.found
    }

    /// True once nothing that follows matters.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Looks at the next bytes of the request's body.
    pub(super) fn read(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() && !self.is_done() {
            let taken = self.advance(chunk);
            chunk = chunk.get(taken..).unwrap_or_default();
        }
    }

    /// Takes as many of the bytes as belong to the step it is in, at least one.
    fn advance(&mut self, chunk: &[u8]) -> usize {
        let Some(first) = chunk.first().copied() else {
            return 0;
        };
        match &mut self.step {
            Step::Header { bytes, read } => {
                bytes[*read] = first;
                *read += 1;
                if *read == bytes.len() {
                    let [compressed, a, b, c, d] = *bytes;
                    let end = u64::from(u32::from_be_bytes([a, b, c, d]));
                    self.levels.push(Level {
                        shape: self.root,
                        end,
                        holder: Holder::Request,
                    });
                    self.step = if compressed == 0 {
                        self.next_field()
                    } else {
                        Step::Done
                    };
                }
                return 1;
            }
            Step::Key(varint) => {
                if let Some(key) = varint.push(first) {
                    self.at += 1;
                    self.step = key.map_or(Step::Done, |key| self.field(key));
                    return 1;
                }
            }
            Step::Number(varint) => {
                if let Some(number) = varint.push(first) {
                    self.at += 1;
                    self.step = number.map_or(Step::Done, |_| self.next_field());
                    return 1;
                }
            }
            Step::Length { sought, varint } => {
                let sought = *sought;
                if let Some(length) = varint.push(first) {
                    self.at += 1;
                    self.step = length.map_or(Step::Done, |length| self.value(sought, length));
                    return 1;
                }
            }
            Step::Skip(left) => {
                let taken = chunk.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                self.at += taken as u64;
                if *left == 0 {
                    self.step = self.next_field();
                }
                return taken;
            }
            Step::Text { sought, left, bytes } => {
                let taken = chunk.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                bytes.extend_from_slice(&chunk[..taken]);
                *left -= taken as u64;
                self.at += taken as u64;
                if *left == 0 {
                    let (sought, bytes) = (*sought, std::mem::take(bytes));
                    self.found.add(sought, bytes);
                    self.step = self.next_field();
                }
                return taken;
            }
            Step::Done => return chunk.len(),
        }
        self.at += 1;
        1
    }

    /// What comes where a field is over.
    fn next_field(&mut self) -> Step {
        while self.levels.last().is_some_and(|level| level.end <= self.at) {
            self.levels.pop();
        }
        if self.levels.is_empty() {
            Step::Done
        } else {
            Step::Key(Varint::default())
        }
    }

    fn field(&mut self, key: u64) -> Step {
        let (number, wire_type) = (key >> 3, key & 7);
        match wire_type {
            0 => Step::Number(Varint::default()),
            1 => Step::Skip(8),
            2 => {
                let number = u32::try_from(number).unwrap_or(0);
                Step::Length {
                    sought: self.sought(number),
                    varint: Varint::default(),
                }
            }
            3 => {
                self.groups += 1;
                self.next_field()
            }
            4 => {
                self.groups = self.groups.saturating_sub(1);
                self.next_field()
            }
            5 => Step::Skip(4),
            _ => Step::Done,
        }
    }

    /// The field of that number in the message it is in, if it is wanted.
    fn sought(&mut self, number: u32) -> Option<Sought> {
        let level = self.levels.last().filter(|_| self.groups == 0)?;
        let field = self.shapes.get(level.shape)?.field(number)?;
        let place = match level.holder {
            Holder::Request if field.is_single => Some(self.place(None, number)),
            Holder::Place(outer) if field.is_single => Some(self.place(Some(outer), number)),
            _ => None,
        };
        Some(Sought {
            wanted: field.wanted,
            place,
        })
    }

    /// There are as many as the request's type has fields, at most.
    fn place(&mut self, outer: Option<usize>, number: u32) -> usize {
        let place = (outer, number);
        let known = self.places.iter().position(|other| *other == place);
        known.unwrap_or_else(|| {
            self.places.push(place);
            self.places.len() - 1
        })
    }

    fn value(&mut self, sought: Option<Sought>, length: u64) -> Step {
        let end = self.at.saturating_add(length);
        if self.levels.last().is_none_or(|level| end > level.end) {
            // No message of ours: it will be refused.
            return Step::Done;
        }
        match sought {
            Some(Sought {
                wanted: Wanted::Message(_),
                ..
            }) if self.levels.len() == MOST_LEVELS => {}
            Some(Sought {
                wanted: Wanted::Message(shape),
                place,
            }) => {
                let holder = place.map_or(Holder::List, Holder::Place);
                self.levels.push(Level { shape, end, holder });
                return self.next_field();
            }
            Some(sought) if (1..=MOST_NAME_BYTES).contains(&length) => {
                return Step::Text {
                    sought,
                    left: length,
                    bytes: Vec::new(),
                };
            }
            // Nothing, or too long to be a name: what the field had before does not count any more.
            Some(sought) => self.found.add(sought, Vec::new()),
            None => {}
        }
        match length {
            0 => self.next_field(),
            _ => Step::Skip(length),
        }
    }
}
