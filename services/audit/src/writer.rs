//! The task that writes a process's trail to the config database.
//!
//! While the database is away it tries again; what comes meanwhile waits in the buffer. Records that were given their place
//! in the chain keep it, and are sent again until they are there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::id::IncarnationId;
use store::Store;
use store::audit::{Entry, Kind, Record, WriterRole, WriterSecret};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::log::AuditLog;

/// Records in a statement at most.
pub(crate) const BATCH: usize = 500;
/// How long a writer with nothing to write is silent.
pub const HEARTBEAT: Duration = Duration::from_secs(60);
/// How often refusals that were only counted are written.
const SUPPRESSED: Duration = Duration::from_secs(10);
/// Before another try, when the database did not take a batch; twice as long after each, up to the second.
const AGAIN: Duration = Duration::from_millis(250);
const LONGEST_AGAIN: Duration = Duration::from_secs(5);
/// How long the last records may take when the process ends.
const LAST: Duration = Duration::from_secs(4);

/// The writer of a trail. Made by [`AuditLog::new`].
#[derive(Debug)]
pub struct Writer {
    log: AuditLog,
    chain: Chain,
    id: IncarnationId,
    /// Shown with every batch, so that nobody else adds to the chain.
    secret: WriterSecret,
    /// In the chain, and perhaps not in the database.
    pending: Vec<Record>,
    /// How many of them have room in the buffer.
    pending_room: usize,
    /// Who is to be told when they are.
    receipts: Vec<oneshot::Sender<()>>,
    last_write: Instant,
    last_suppressed: Instant,
}

impl Writer {
    pub(crate) fn new(log: AuditLog, id: IncarnationId, role: WriterRole, secret: WriterSecret) -> Self {
        // Also outside a runtime: it is made before it runs.
        let now = Instant::now();
        Self {
            log,
            chain: Chain::new(id, role),
            id,
            secret,
            pending: Vec::new(),
            pending_room: 0,
            receipts: Vec::new(),
            last_write: now,
            last_suppressed: now,
        }
    }

    /// The name of its chain.
    #[must_use]
    pub const fn id(&self) -> IncarnationId {
        self.id
    }

    /// Writes until `stop` is cancelled, then what is left, and that it ends.
    pub async fn run(mut self, store: Store, stop: CancellationToken) {
        tracing::info!(audit.writer = %self.id, "the audit trail begins");
        self.chained(Kind::Start, 0);
        let mut again = AGAIN;
        while !stop.is_cancelled() {
            let written = self.write_all(&store).await;
            let wait = match written {
                Ok(()) => {
                    again = AGAIN;
                    self.log.0.options.flush_interval
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        waiting = self.log.figures().buffered,
                        "the audit trail is not written; it is tried again"
                    );
                    let wait = again;
                    again = (again * 2).min(LONGEST_AGAIN);
                    wait
                }
            };
            let is_failing = again > AGAIN;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(wait) => {}
                () = self.log.0.wake.notified(), if !is_failing => {}
            }
        }
        self.finish(&store).await;
    }

    /// Writes what is left.
    async fn finish(mut self, store: &Store) {
        let last = async {
            while let Err(error) = self.write_all(store).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the last audit records wait"
                );
                sleep(AGAIN).await;
            }
            self.chained(Kind::Stop, 0);
            while let Err(error) = self.write_pending(store).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the audit trail is not closed"
                );
                sleep(AGAIN).await;
            }
        };
        if timeout(LAST, last).await.is_err() {
            tracing::error!(
                lost = self.log.figures().buffered,
                "the audit trail ends without its last records"
            );
        }
    }

    /// Puts a record of the writer's own into the chain. It takes no room in the buffer: there are few.
    fn chained(&mut self, kind: Kind, count: u64) {
        let entry = self.log.entry(kind);
        self.chain_entry(Entry {
            count: i64::try_from(count).unwrap_or(i64::MAX),
            ..entry
        });
    }

    fn chain_entry(&mut self, entry: Entry) {
        let record = self.chain.append(entry);
        self.pending.push(record);
    }

    async fn write_all(&mut self, store: &Store) -> Result<(), store::StoreError> {
        loop {
            self.write_pending(store).await?;
            let (batch, uncounted, more) = {
                let mut buffer = self.log.0.buffer.lock();
                let batch = buffer.take(BATCH);
                (batch, buffer.take_uncounted(), buffer.waiting() > 0)
            };
            self.pending_room = batch.len();
            for waiting in batch {
                self.receipts.extend(waiting.receipt);
                self.chain_entry(waiting.entry);
            }
            if uncounted > 0 {
                self.chained(Kind::Unrecorded, uncounted);
            }
            self.note_suppressed();
            if self.pending.is_empty() && self.last_write.elapsed() >= HEARTBEAT {
                self.chained(Kind::Heartbeat, 0);
            }
            if !more {
                break;
            }
        }
        self.write_pending(store).await
    }

    async fn write_pending(&mut self, store: &Store) -> Result<(), store::StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        store.audit().append(&self.secret, &self.pending).await?;
        let shared = &self.log.0;
        shared
            .written
            .fetch_add(self.pending.len() as u64, Ordering::Relaxed);
        shared
            .buffer
            .lock()
            .written(std::mem::take(&mut self.pending_room));
        self.pending.clear();
        for receipt in self.receipts.drain(..) {
            // Nobody may wait for it any more.
            let _ = receipt.send(());
        }
        self.last_write = Instant::now();
        Ok(())
    }

    fn note_suppressed(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.last_suppressed) < SUPPRESSED {
            return;
        }
        self.last_suppressed = now;
        let suppressed = self.log.0.denials.lock().take_suppressed(now);
        for (address, count) in suppressed {
            let entry = self.log.entry(Kind::Suppressed);
            self.chain_entry(Entry {
                address,
                count: i64::try_from(count).unwrap_or(i64::MAX),
                ..entry
            });
        }
    }
}
