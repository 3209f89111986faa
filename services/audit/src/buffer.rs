//! Records between the calls they are about and the config database. No IO.
//!
//! Invariant: places that are kept, records that wait and records that are being written are together never more than the
//! capacity; every record that was offered is taken or counted.

use std::collections::VecDeque;

/// What follows when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Calls that must be recorded are refused.
    Refuse,
    /// Calls go on, and how many were not recorded is recorded afterwards.
    #[default]
    Count,
}

/// There is no room, and calls are to be refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Whether room is kept for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Room {
    /// It is.
    Kept,
    /// There was none: the record takes its chance.
    None,
}

/// The buffer. `T` is a record.
#[derive(Debug)]
pub struct Buffer<T> {
    capacity: usize,
    when_full: WhenFull,
    kept: usize,
    waiting: VecDeque<T>,
    being_written: usize,
    uncounted: u64,
}

impl<T> Buffer<T> {
    /// An empty buffer.
    #[must_use]
    pub fn new(capacity: usize, when_full: WhenFull) -> Self {
        Self {
            capacity,
            when_full,
            kept: 0,
            waiting: VecDeque::new(),
            being_written: 0,
            uncounted: 0,
        }
    }

    /// How much of it is taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.kept + self.waiting.len() + self.being_written
    }

    /// How many records wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps room for the record of what is about to happen.
    ///
    /// # Errors
    /// Where there is none, and that refuses calls.
    pub fn keep(&mut self) -> Result<Room, Full> {
        match self.when_full {
            _ if self.used() < self.capacity => {
                self.kept += 1;
                Ok(Room::Kept)
            }
            WhenFull::Refuse => Err(Full),
            WhenFull::Count => Ok(Room::None),
        }
    }

    /// Gives room back that is not needed.
    pub fn release(&mut self, room: Room) {
        if room == Room::Kept {
            self.kept = self.kept.saturating_sub(1);
        }
    }

    /// Takes a record in. False where it was only counted.
    pub fn put(&mut self, room: Room, record: T) -> bool {
        self.release(room);
        let fits = self.used() < self.capacity;
        if fits {
            self.waiting.push_back(record);
        } else {
            self.uncounted += 1;
        }
        fits
    }

    /// Hands out the oldest records, to be written. They keep their room until [`Buffer::written`].
    pub fn take(&mut self, most: usize) -> Vec<T> {
        let batch: Vec<T> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        self.being_written += batch.len();
        batch
    }

    /// How many records were only counted since this was asked last.
    pub fn take_uncounted(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// So many of those that were handed out are written.
    pub fn written(&mut self, records: usize) {
        self.being_written = self.being_written.saturating_sub(records);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_buffer_refuses_before_anything_happens() {
        let mut buffer = Buffer::new(2, WhenFull::Refuse);
        let first = buffer.keep().unwrap();
        let second = buffer.keep().unwrap();
        assert_eq!(buffer.keep(), Err(Full));
        assert!(buffer.put(first, 1));
        assert_eq!(buffer.keep(), Err(Full));
        buffer.release(second);
        assert_eq!(buffer.keep(), Ok(Room::Kept));
    }

    #[test]
    fn full_buffer_counts_what_it_does_not_take() {
        let mut buffer = Buffer::new(1, WhenFull::Count);
        let (first, second) = (buffer.keep().unwrap(), buffer.keep().unwrap());
        assert_eq!((first, second), (Room::Kept, Room::None));
        assert!(!buffer.put(second, 2));
        assert!(buffer.put(first, 1));
        assert_eq!((buffer.take(9), buffer.take_uncounted()), (vec![1], 1));
        assert!(!buffer.put(Room::None, 3), "it is not written yet");
        buffer.written(1);
        assert!(buffer.put(Room::None, 4));
        assert_eq!(buffer.take_uncounted(), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Keep,
        Release,
        PutKept,
        Put,
        Take(usize),
        Written,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Keep),
            Just(Step::Release),
            Just(Step::PutKept),
            Just(Step::Put),
            (0..4_usize).prop_map(Step::Take),
            Just(Step::Written),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn every_record_is_taken_once_and_in_order_or_counted(
            capacity in 0..5_usize,
            refuse in any::<bool>(),
            steps in steps(),
        ) {
            let when_full = if refuse { WhenFull::Refuse } else { WhenFull::Count };
            let mut buffer = Buffer::new(capacity, when_full);
            let (mut rooms, mut offered, mut taken, mut in_hand) = (Vec::new(), 0_u64, Vec::new(), 0);
            let (mut accepted, mut counted) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Keep => rooms.extend(buffer.keep()),
                    Step::Release => {
                        if let Some(room) = rooms.pop() {
                            buffer.release(room);
                        }
                    }
                    Step::PutKept | Step::Put => {
                        let room = if matches!(step, Step::Put) { Some(Room::None) } else { rooms.pop() };
                        if let Some(room) = room {
                            offered += 1;
                            let fits = buffer.put(room, offered);
                            prop_assert!(fits || room == Room::None, "room was kept and there was none");
                            if fits { accepted.push(offered) } else { counted += 1 }
                        }
                    }
                    Step::Take(most) => {
                        let batch = buffer.take(most);
                        in_hand += batch.len();
                        taken.extend(batch);
                    }
                    Step::Written => {
                        buffer.written(in_hand);
                        in_hand = 0;
                    }
                }
                prop_assert!(buffer.used() <= capacity);
            }
            taken.extend(buffer.take(usize::MAX));
            prop_assert_eq!(taken, accepted);
            prop_assert_eq!(buffer.take_uncounted(), counted);
        }
    }
}
