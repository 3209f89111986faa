//! Writes down, in the config database, what another pooler would have to know if this one were gone: its connections and
//! its sessions.
//!
//! One task writes; what comes meanwhile goes with the next batch. A connection is in flight until it is recorded, and
//! only few are, so that a successor knows how many it cannot know of. What the database does not take is tried again:
//! until then it is only known here.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::id::IncarnationId;
use domain::session::SessionId;
use parking_lot::Mutex;
use store::sessions::{Parting, Session, Standing};
use store::succession::Connection;
use store::{Store, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};

use crate::error::{LossCause, PoolerError};
use crate::status::store_error;

/// How long somebody waits for what must be written before he goes on.
const WRITE: Duration = Duration::from_secs(5);
/// How long a batch may take.
const LONGEST: Duration = Duration::from_secs(15);
/// Before another try, when the database did not take a batch.
const AGAIN: Duration = Duration::from_millis(250);
/// Rows in a statement at most.
const MOST_ROWS: usize = 1000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Recorder {
    store: Store,
    me: IncarnationId,
    pending: Mutex<Pending>,
    wake: Notify,
}

/// Somebody who waits until a session is written down, and whether it was.
type Told = oneshot::Sender<Result<bool, PoolerError>>;

#[derive(Debug, Default)]
struct Pending {
    /// With what lets another connection be opened.
    opened: HashMap<Connection, OwnedSemaphorePermit>,
    closed: HashSet<Connection>,
    new: Vec<(Session, Told)>,
    parked: Vec<(Parting, Told)>,
    /// Ended, and their owners are to be told by somebody else.
    lost: HashMap<SessionId, Parting>,
    noted: HashMap<SessionId, Standing>,
    ended: HashSet<SessionId>,
}

/// A connection on the record, as long as it lives.
#[derive(Debug)]
pub(crate) struct Entry {
    recorder: std::sync::Arc<Recorder>,
    connection: Connection,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.recorder.closed(self.connection);
    }
}

impl Recorder {
    pub(crate) fn new(store: Store, me: IncarnationId) -> Self {
        Self {
            store,
            me,
            pending: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// True while connections are there that the config database has not been told of.
    pub(crate) fn is_behind(&self) -> bool {
        !self.pending.lock().opened.is_empty()
    }

    /// Records a connection. `permit` is given back once that is done, or the connection is gone.
    pub(crate) fn opened(
        self: &std::sync::Arc<Self>,
        connection: Connection,
        permit: OwnedSemaphorePermit,
    ) -> Entry {
        self.pending.lock().opened.insert(connection, permit);
        self.wake.notify_one();
        Entry {
            recorder: std::sync::Arc::clone(self),
            connection,
        }
    }

    fn closed(&self, connection: Connection) {
        let mut pending = self.pending.lock();
        // What was never written need not be removed; but it may be on its way.
        pending.opened.remove(&connection);
        pending.closed.insert(connection);
        drop(pending);
        self.wake.notify_one();
    }

    /// Writes a new session down. False where its server or its owner is gone.
    pub(crate) async fn session(&self, session: Session) -> Result<bool, PoolerError> {
        let (told, answer) = oneshot::channel();
        self.pending.lock().new.push((session, told));
        self.wait(answer).await
    }

    /// Lets go of a session with nothing lost. False where it is not ours any more.
    pub(crate) fn park(&self, standing: Standing) -> oneshot::Receiver<Result<bool, PoolerError>> {
        let (told, answer) = oneshot::channel();
        let mut pending = self.pending.lock();
        pending.noted.remove(&standing.id);
        let parting = Parting { standing, loss: None };
        pending.parked.push((parting, told));
        drop(pending);
        self.wake.notify_one();
        answer
    }

    /// Waits for what [`Recorder::park`] began.
    pub(crate) async fn wait(
        &self,
        answer: oneshot::Receiver<Result<bool, PoolerError>>,
    ) -> Result<bool, PoolerError> {
        self.wake.notify_one();
        match timeout(WRITE, answer).await {
            Ok(Ok(written)) => written,
            // Given up: it may have been written or not.
            Ok(Err(_)) | Err(_) => Err(PoolerError::ConfigDatabase),
        }
    }

    /// Writes down how a session stands, when there is time.
    pub(crate) fn note(&self, standing: Standing) {
        self.pending.lock().noted.insert(standing.id, standing);
        self.wake.notify_one();
    }

    /// Leaves word of a session that ended because this pooler does.
    pub(crate) fn lost(&self, standing: Standing, cause: LossCause) {
        let mut pending = self.pending.lock();
        pending.noted.remove(&standing.id);
        let loss = Some(cause.as_str());
        pending.lost.insert(standing.id, Parting { standing, loss });
        drop(pending);
        self.wake.notify_one();
    }

    /// Forgets a session that has ended.
    pub(crate) fn ended(&self, session: SessionId) {
        let mut pending = self.pending.lock();
        pending.noted.remove(&session);
        pending.ended.insert(session);
        drop(pending);
        self.wake.notify_one();
    }

    /// Writes, for ever.
    pub(crate) async fn run(&self) {
        loop {
            self.wake.notified().await;
            while !self.is_done() {
                match timeout(LONGEST, self.write_once()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "what poolers have to know of each other could not be written");
                        sleep(AGAIN).await;
                    }
                    Err(_) => tracing::warn!("the config database takes too long to write"),
                }
            }
        }
    }

    /// Writes what is left, at the end.
    pub(crate) async fn finish(&self) {
        while !self.is_done() {
            if let Err(error) = self.write_once().await {
                tracing::warn!(%error, "connections and sessions stay on the record of a pooler that is gone");
                return;
            }
        }
    }

    fn is_done(&self) -> bool {
        let pending = self.pending.lock();
        pending.opened.is_empty()
            && pending.closed.is_empty()
            && pending.new.is_empty()
            && pending.parked.is_empty()
            && pending.lost.is_empty()
            && pending.noted.is_empty()
            && pending.ended.is_empty()
    }

    async fn write_once(&self) -> Result<(), StoreError> {
        self.write_connections().await?;
        self.write_new().await?;
        self.write_parked().await?;
        self.write_noted().await?;
        self.write_lost().await?;
        self.write_ended().await
    }

    async fn write_connections(&self) -> Result<(), StoreError> {
        let (opened, closed) = {
            let pending = self.pending.lock();
            let opened: Vec<_> = pending.opened.keys().take(MOST_ROWS).copied().collect();
            let closed: Vec<_> = pending.closed.iter().take(MOST_ROWS).copied().collect();
            (opened, closed)
        };
        if opened.is_empty() && closed.is_empty() {
            return Ok(());
        }
        self.store.succession().record(self.me, &opened, &closed).await?;
        let mut pending = self.pending.lock();
        for connection in opened {
            pending.opened.remove(&connection);
        }
        for connection in closed {
            pending.closed.remove(&connection);
        }
        Ok(())
    }

    async fn write_new(&self) -> Result<(), StoreError> {
        let (sessions, told): (Vec<_>, Vec<_>) = {
            let mut pending = self.pending.lock();
            // Who does not wait any more was told that it failed.
            pending.new.retain(|(_, told)| !told.is_closed());
            let most = pending.new.len().min(MOST_ROWS);
            pending.new.drain(..most).unzip()
        };
        if sessions.is_empty() {
            return Ok(());
        }
        let recorded = self.store.sessions().record(self.me, &sessions).await;
        answer(recorded, sessions.iter().map(|session| session.id), told)
    }

    async fn write_parked(&self) -> Result<(), StoreError> {
        let (partings, told): (Vec<_>, Vec<_>) = {
            let mut pending = self.pending.lock();
            pending.parked.retain(|(_, told)| !told.is_closed());
            let most = pending.parked.len().min(MOST_ROWS);
            pending.parked.drain(..most).unzip()
        };
        if partings.is_empty() {
            return Ok(());
        }
        let parked = self.store.sessions().park(self.me, &partings).await;
        answer(parked, partings.iter().map(|parting| parting.standing.id), told)
    }

    async fn write_lost(&self) -> Result<(), StoreError> {
        let lost: Vec<_> = {
            let pending = self.pending.lock();
            pending.lost.values().take(MOST_ROWS).copied().collect()
        };
        if lost.is_empty() {
            return Ok(());
        }
        self.store.sessions().park(self.me, &lost).await?;
        let mut pending = self.pending.lock();
        for parting in lost {
            pending.lost.remove(&parting.standing.id);
        }
        Ok(())
    }

    async fn write_noted(&self) -> Result<(), StoreError> {
        let standings: Vec<_> = {
            let pending = self.pending.lock();
            pending.noted.values().take(MOST_ROWS).copied().collect()
        };
        if standings.is_empty() {
            return Ok(());
        }
        self.store.sessions().note(self.me, &standings).await?;
        let mut pending = self.pending.lock();
        for standing in standings {
            // Unless it changed meanwhile.
            if pending.noted.get(&standing.id) == Some(&standing) {
                pending.noted.remove(&standing.id);
            }
        }
        Ok(())
    }

    async fn write_ended(&self) -> Result<(), StoreError> {
        let ended: Vec<_> = self
            .pending
            .lock()
            .ended
            .iter()
            .take(MOST_ROWS)
            .copied()
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        self.store.sessions().forget(self.me, &ended).await?;
        let mut pending = self.pending.lock();
        for session in ended {
            pending.ended.remove(&session);
        }
        Ok(())
    }
}

/// Tells each who waits what became of his session.
fn answer(
    written: Result<HashSet<SessionId>, StoreError>,
    sessions: impl Iterator<Item = SessionId>,
    told: Vec<Told>,
) -> Result<(), StoreError> {
    match written {
        Ok(written) => {
            for (session, told) in sessions.zip(told) {
                // Nobody may wait any more.
                let _ = told.send(Ok(written.contains(&session)));
            }
            Ok(())
        }
        Err(error) => {
            let error = store_error(error);
            for told in told {
                let _ = told.send(Err(match &error {
                    PoolerError::Internal { error_id } => PoolerError::Internal { error_id: *error_id },
                    _ => PoolerError::ConfigDatabase,
                }));
            }
            Ok(())
        }
    }
}
