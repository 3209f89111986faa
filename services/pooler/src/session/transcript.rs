//! What an execution has said, as far as it is kept, as a state machine without IO: what its reader has not taken yet, and
//! for one who comes later the last of what was taken.
//!
//! Invariant: what is kept has no gaps, and nothing is forgotten that was not taken.

use std::collections::VecDeque;

use rpc::events::EncodedEvents;
use thiserror::Error;

/// Bytes that may wait for the reader before the writer stops.
pub(super) const ROOM: usize = 256 * 1024;

/// A message and the numbers of its events.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) message: EncodedEvents,
    /// The number of its first event.
    pub(crate) first: i64,
    /// The number of its last event; less than `first` where none of them counts.
    pub(crate) last: i64,
}

/// The events after that number are not all there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the events are not kept any more")]
pub(crate) struct Expired;

/// See the module.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// The oldest first.
    kept: VecDeque<Numbered>,
    /// How many of them the reader has taken.
    taken: usize,
    taken_bytes: usize,
    waiting_bytes: usize,
    /// Bytes kept of what was taken.
    memory: usize,
    /// The number of the last event.
    last: i64,
}

impl Transcript {
    /// One that keeps so many bytes of what was taken, and begins after the event of that number.
    pub(crate) fn new(memory: usize, after: i64) -> Self {
        Self {
            kept: VecDeque::new(),
            taken: 0,
            taken_bytes: 0,
            waiting_bytes: 0,
            memory,
            last: after,
        }
    }

    /// False while the reader has enough to do.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting_bytes < ROOM
    }

    /// Bytes it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.taken_bytes + self.waiting_bytes
    }

    /// Adds a message. `last` is the number of the last event written so far.
    pub(crate) fn push(&mut self, message: EncodedEvents, last: i64) {
        self.waiting_bytes += message.as_bytes().len();
        let first = self.last + 1;
        self.last = self.last.max(last);
        self.kept.push_back(Numbered {
            message,
            first,
            last: self.last,
        });
    }

    /// The next message for the reader.
    pub(crate) fn take(&mut self) -> Option<Numbered> {
        let next = self.kept.get(self.taken)?.clone();
        self.taken += 1;
        let length = next.message.as_bytes().len();
        self.waiting_bytes -= length;
        self.taken_bytes += length;
        while self.taken_bytes > self.memory
            && let Some(oldest) = self.kept.pop_front()
        {
            self.taken -= 1;
            self.taken_bytes -= oldest.message.as_bytes().len();
        }
        Some(next)
    }

    /// What the reader has taken and is still there, from after the event of that number.
    pub(crate) fn taken(&self, after: i64) -> Vec<Numbered> {
        let taken = self.kept.iter().take(self.taken);
        taken.filter(|taken| taken.last > after).cloned().collect()
    }

    /// Has the reader begin again with what comes after the event of that number.
    ///
    /// # Errors
    /// [`Expired`] where that is not there any more, or was never written; nothing changes then.
    pub(crate) fn rewind(&mut self, after: i64) -> Result<(), Expired> {
        let first = self.kept.front().map_or(self.last + 1, |oldest| oldest.first);
        if after + 1 < first || after > self.last {
            return Err(Expired);
        }
        let position = self.kept.iter().position(|kept| kept.last > after);
        self.taken = position.unwrap_or(self.kept.len());
        let bytes = |kept: &Numbered| kept.message.as_bytes().len();
        let all: usize = self.kept.iter().map(bytes).sum();
        self.taken_bytes = self.kept.iter().take(self.taken).map(bytes).sum();
        self.waiting_bytes = all - self.taken_bytes;
        Ok(())
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        (self.taken, self.taken_bytes, self.waiting_bytes) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests;
