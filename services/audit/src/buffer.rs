//! Records between the calls they are about and the config database. No IO; time is passed in.
//!
//! Invariant: places that are kept, records that wait and records that are being written are together never more than the
//! capacity; every record that was offered is taken or counted; where calls are refused when there is no room, there is none
//! either while a record is older than the window.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

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
    window: Duration,
    kept: usize,
    /// Each with when it came.
    waiting: VecDeque<(Instant, T)>,
    being_written: usize,
    /// When the oldest of those came.
    being_written_since: Option<Instant>,
    uncounted: u64,
}

impl<T> Buffer<T> {
    /// An empty buffer. Who counts what finds no room has no use for the window: a call that goes on unrecorded is lost at once.
    #[must_use]
    pub fn new(capacity: usize, when_full: WhenFull, window: Duration) -> Self {
        Self {
            capacity,
            when_full,
            window,
            kept: 0,
            waiting: VecDeque::new(),
            being_written: 0,
            being_written_since: None,
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

    /// How long ago the oldest record came that is not written yet.
    #[must_use]
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.front().map(|(since, _)| *since);
        let since = self.being_written_since.or(waiting)?;
        Some(now.saturating_duration_since(since))
    }

    /// Keeps room for the record of what is about to happen.
    ///
    /// # Errors
    /// Where there is none, and that refuses calls.
    pub fn keep(&mut self, now: Instant) -> Result<Room, Full> {
        let is_late = self.oldest(now).is_some_and(|age| age > self.window);
        match self.when_full {
            WhenFull::Refuse if is_late => Err(Full),
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
    pub fn put(&mut self, room: Room, record: T, now: Instant) -> bool {
        self.release(room);
        let fits = self.used() < self.capacity;
        if fits {
            self.waiting.push_back((now, record));
        } else {
            self.uncounted += 1;
        }
        fits
    }

    /// Hands out the oldest records, to be written. They keep their room until [`Buffer::written`].
    pub fn take(&mut self, most: usize) -> Vec<T> {
        let batch = self.waiting.drain(..most.min(self.waiting.len()));
        let (times, records): (Vec<Instant>, Vec<T>) = batch.unzip();
        self.being_written += records.len();
        self.being_written_since = self.being_written_since.or(times.first().copied());
        records
    }

    /// How many records were only counted since this was asked last.
    pub fn take_uncounted(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// So many of those that were handed out are written.
    pub fn written(&mut self, records: usize) {
        self.being_written = self.being_written.saturating_sub(records);
        if self.being_written == 0 {
            self.being_written_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn full_buffer_refuses_before_anything_happens() {
        let now = Instant::now();
        let mut buffer = Buffer::new(2, WhenFull::Refuse, WINDOW);
        let first = buffer.keep(now).unwrap();
        let second = buffer.keep(now).unwrap();
        assert_eq!(buffer.keep(now), Err(Full));
        assert!(buffer.put(first, 1, now));
        assert_eq!(buffer.keep(now), Err(Full));
        buffer.release(second);
        assert_eq!(buffer.keep(now), Ok(Room::Kept));
    }

    #[test]
    fn full_buffer_counts_what_it_does_not_take() {
        let now = Instant::now();
        let mut buffer = Buffer::new(1, WhenFull::Count, WINDOW);
        let (first, second) = (buffer.keep(now).unwrap(), buffer.keep(now).unwrap());
        assert_eq!((first, second), (Room::Kept, Room::None));
        assert!(!buffer.put(second, 2, now));
        assert!(buffer.put(first, 1, now));
        assert_eq!((buffer.take(9), buffer.take_uncounted()), (vec![1], 1));
        assert!(!buffer.put(Room::None, 3, now), "it is not written yet");
        buffer.written(1);
        assert!(buffer.put(Room::None, 4, now));
        assert_eq!(buffer.take_uncounted(), 1);
    }

    #[test]
    fn buffer_with_a_record_older_than_the_window_refuses_until_it_is_written() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut buffer = Buffer::new(100, WhenFull::Refuse, WINDOW);
        let open = buffer.keep(begin).unwrap();
        let first = buffer.keep(begin).unwrap();
        assert!(buffer.put(first, 1, begin));
        assert!(buffer.put(Room::None, 2, after(4)));
        let still = buffer.keep(after(10)).unwrap();
        assert_eq!(buffer.keep(after(11)), Err(Full));
        assert_eq!(buffer.take(1), [1]);
        assert_eq!(buffer.keep(after(11)), Err(Full), "it is not written yet");
        assert_eq!(buffer.oldest(after(11)), Some(Duration::from_secs(11)));
        // Room that was kept before stays kept.
        assert!(buffer.put(open, 3, after(12)) && buffer.put(still, 4, after(12)));
        buffer.written(1);
        assert_eq!(buffer.keep(after(14)), Ok(Room::Kept), "the second came later");
        assert_eq!(buffer.keep(after(15)), Err(Full));
        assert_eq!(buffer.take(9), [2, 3, 4]);
        buffer.written(3);
        assert_eq!(
            (buffer.oldest(after(99)), buffer.keep(after(99))),
            (None, Ok(Room::Kept))
        );
    }

    #[test]
    fn buffer_that_counts_keeps_records_of_any_age() {
        let begin = Instant::now();
        let mut buffer = Buffer::new(2, WhenFull::Count, WINDOW);
        assert!(buffer.put(Room::None, 1, begin));
        assert_eq!(buffer.keep(begin + 100 * WINDOW), Ok(Room::Kept));
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
            let now = Instant::now();
            let mut buffer = Buffer::new(capacity, when_full, WINDOW);
            let (mut rooms, mut offered, mut taken, mut in_hand) = (Vec::new(), 0_u64, Vec::new(), 0);
            let (mut accepted, mut counted) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Keep => rooms.extend(buffer.keep(now)),
                    Step::Release => {
                        if let Some(room) = rooms.pop() {
                            buffer.release(room);
                        }
                    }
                    Step::PutKept | Step::Put => {
                        let room = if matches!(step, Step::Put) { Some(Room::None) } else { rooms.pop() };
                        if let Some(room) = room {
                            offered += 1;
                            let fits = buffer.put(room, offered, now);
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
