//! Where the rest of a process leaves its records.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::clock::Clock;
use domain::id::IncarnationId;
use domain::random::{self, Random};
use parking_lot::Mutex;
use store::audit::{Entry, Kind, WriterRole, WriterSecret};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::buffer::{Buffer, Room, WhenFull};
use crate::denials::Denials;
use crate::receipt::Receipt;
use crate::statement::{Statement, StatementText};
use crate::writer::{BATCH, Writer};

/// Characters of a field that are kept.
const MOST_CHARS: usize = 1000;
/// Characters of a statement.
const MOST_STATEMENT_CHARS: usize = 8 * 1024;

/// Room that calls of one user may keep in the smallest trail.
const LEAST_SHARE: usize = 64;

/// How a process keeps its trail.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Records that may wait, or be about to come.
    pub capacity: usize,
    /// What follows when there are as many.
    pub when_full: WhenFull,
    /// How often they are written.
    pub flush_interval: Duration,
    /// Where calls are refused when there is no room: how old a record may become that is not written, before they are. What a
    /// crash loses is no older.
    pub loss_window: Duration,
    /// What is kept of statements.
    pub statement_text: StatementText,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            when_full: WhenFull::Count,
            flush_interval: Duration::from_secs(1),
            loss_window: Duration::from_secs(10),
            statement_text: StatementText::Fingerprint,
        }
    }
}

/// There is no room for a record, and calls are to be refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit trail has no room: the config database does not take its records, or not fast enough")]
pub struct Unavailable;

/// The trail of a process. Clones are the same one.
#[derive(Clone)]
pub struct AuditLog(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) buffer: Mutex<Buffer<Waiting>>,
    pub(crate) denials: Mutex<Denials>,
    /// Rung when a batch is full.
    pub(crate) wake: Notify,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: LogOptions,
    random: Arc<dyn Random>,
    pub(crate) written: AtomicU64,
    pub(crate) unrecorded: AtomicU64,
    pub(crate) suppressed: AtomicU64,
}

/// A record that waits to be written.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) entry: Entry,
    /// Where it is said that it is.
    pub(crate) receipt: Option<oneshot::Sender<()>>,
}

/// What became of records so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Records in the config database.
    pub written: u64,
    /// Records that found no room.
    pub unrecorded: u64,
    /// Refused calls that were only counted.
    pub suppressed: u64,
    /// Records that wait, or are about to come.
    pub buffered: usize,
    /// How long ago the oldest record came that is not written yet.
    pub oldest: Option<Duration>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog")
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}

impl AuditLog {
    /// A trail, and the writer that must run beside it.
    #[must_use]
    pub fn new(
        role: WriterRole,
        options: LogOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> (Self, Writer) {
        let writer = IncarnationId::generate(random.as_ref());
        let secret = WriterSecret::generate(random.as_ref());
        let log = Self(Arc::new(Shared {
            buffer: Mutex::new(Buffer::new(
                options.capacity,
                options.when_full,
                options.loss_window,
            )),
            denials: Mutex::default(),
            wake: Notify::new(),
            clock,
            options,
            random,
            written: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }));
        let writer = Writer::new(log.clone(), writer, role, secret);
        (log, writer)
    }

    /// Keeps room for the record of what is about to happen.
    ///
    /// # Errors
    /// Where there is none and calls are to be refused then.
    pub fn reserve(&self) -> Result<Place, Unavailable> {
        let room = self
            .0
            .buffer
            .lock()
            .keep(Instant::now())
            .map_err(|_| Unavailable)?;
        Ok(Place {
            log: self.clone(),
            room: Some(room),
        })
    }

    /// Room that calls of one user may keep at a time: a quarter of all, and at least [`LEAST_SHARE`].
    #[must_use]
    pub fn share(&self) -> usize {
        (self.0.options.capacity / 4).max(LEAST_SHARE)
    }

    /// Takes in a record that nobody kept room for. Without room it is counted.
    pub fn record(&self, entry: Entry) {
        self.put(Room::None, entry, None);
    }

    /// The same, for who has to know whether it was written.
    #[must_use]
    pub fn record_with_receipt(&self, entry: Entry) -> Receipt {
        let (written, receipt) = Receipt::new();
        self.put(Room::None, entry, Some(written));
        receipt
    }

    /// Whether a refusal of a call from that address is recorded by itself; else it is counted.
    #[must_use]
    pub fn admits_denial(&self, address: &str) -> bool {
        let admitted = self.0.denials.lock().admit(address, Instant::now());
        if !admitted {
            self.0.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// A record that begins now.
    #[must_use]
    pub fn entry(&self, kind: Kind) -> Entry {
        Entry::new(kind, self.0.clock.now())
    }

    /// What is kept of a statement.
    #[must_use]
    pub fn statement(&self, sql: &str) -> Statement {
        Statement::of(sql, self.0.options.statement_text)
    }

    /// A correlation id for a call that belongs to no trace.
    #[must_use]
    pub fn correlation_id(&self) -> String {
        data_encoding::HEXLOWER.encode(&random::bytes::<16>(self.0.random.as_ref()))
    }

    /// What became of records so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (buffered, oldest) = {
            let buffer = self.0.buffer.lock();
            (buffer.used(), buffer.oldest(Instant::now()))
        };
        Figures {
            written: count(&self.0.written),
            unrecorded: count(&self.0.unrecorded),
            suppressed: count(&self.0.suppressed),
            buffered,
            oldest,
        }
    }

    fn put(&self, room: Room, mut entry: Entry, receipt: Option<oneshot::Sender<()>>) {
        tidy(&mut entry);
        let mut buffer = self.0.buffer.lock();
        if !buffer.put(room, Waiting { entry, receipt }, Instant::now()) {
            self.0.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        let is_batch = buffer.waiting() >= BATCH;
        drop(buffer);
        if is_batch {
            self.0.wake.notify_one();
        }
    }
}

/// Room for one record. Dropped without one, it is given back.
#[derive(Debug)]
pub struct Place {
    log: AuditLog,
    room: Option<Room>,
}

impl Place {
    /// Takes in the record that the room was kept for.
    pub fn record(mut self, entry: Entry) {
        if let Some(room) = self.room.take() {
            self.log.put(room, entry, None);
        }
    }

    /// Where the room is.
    #[must_use]
    pub const fn log(&self) -> &AuditLog {
        &self.log
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            self.log.0.buffer.lock().release(room);
        }
    }
}

/// Has no text longer than it may be, or with characters that PostgreSQL does not take: one record that cannot be written
/// would hold up all that come after it.
fn tidy(entry: &mut Entry) {
    tidy_text(&mut entry.statement, MOST_STATEMENT_CHARS);
    let texts = [
        &mut entry.correlation_id,
        &mut entry.username,
        &mut entry.provider,
        &mut entry.credential,
        &mut entry.address,
        &mut entry.method,
        &mut entry.session,
        &mut entry.database,
        &mut entry.role,
        &mut entry.statement_fingerprint,
        &mut entry.outcome,
        &mut entry.reason,
        &mut entry.sqlstate,
        &mut entry.commit_outcome,
    ];
    for text in texts.into_iter().chain(&mut entry.resources) {
        tidy_text(text, MOST_CHARS);
    }
}

fn tidy_text(text: &mut String, most: usize) {
    let is_odd = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
    if text.len() > most || text.contains(is_odd) {
        let tidied = text
            .chars()
            .take(most)
            .map(|char| if is_odd(char) { '\u{fffd}' } else { char });
        *text = tidied.collect();
    }
}

#[cfg(test)]
mod tests {
    use domain::clock::SystemClock;
    use domain::random::SystemRandom;

    use super::*;

    fn log(capacity: usize, when_full: WhenFull) -> AuditLog {
        let options = LogOptions {
            capacity,
            when_full,
            ..LogOptions::default()
        };
        AuditLog::new(
            WriterRole::Api,
            options,
            Arc::new(SystemClock),
            Arc::new(SystemRandom),
        )
        .0
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let log = log(1, WhenFull::Refuse);
        let place = log.reserve().unwrap();
        assert_eq!(log.reserve().unwrap_err(), Unavailable);
        drop(place);
        let place = log.reserve().unwrap();
        place.record(log.entry(Kind::Call));
        assert_eq!(log.reserve().unwrap_err(), Unavailable);
        log.record(log.entry(Kind::Call));
        assert_eq!((log.figures().buffered, log.figures().unrecorded), (1, 1));
    }

    #[test]
    fn text_that_cannot_be_written_is_made_to_fit() {
        let log = log(1, WhenFull::Refuse);
        let mut entry = log.entry(Kind::Call);
        entry.username = "a\0b\u{1b}[31m".to_owned();
        entry.resources = vec!["x".repeat(5000)];
        log.record(entry);
        let entry = log.0.buffer.lock().take(1).remove(0).entry;
        assert_eq!(entry.username, "a\u{fffd}b\u{fffd}[31m");
        assert_eq!(entry.resources[0].len(), MOST_CHARS);
    }
}
