//! The sessions of this pooler, and for a while the names of those that ended.
//!
//! Invariant: only the owner of a session learns anything about it, its end included; to everybody else a session of
//! another user, one that ended and one that never was are the same.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use domain::id::{ServerId, UserId};
use domain::session::{ExecutionName, SessionName};
use parking_lot::{Mutex, RwLock};
use rpc::query::v1::CommitOutcome;
use tokio::time::Instant;

use crate::error::{Loss, PoolerError};
use crate::session::{LastExecution, Session};

/// How long the end of a session is remembered.
const MEMORY: Duration = Duration::from_secs(3600);
/// Ends remembered at most; the oldest are forgotten first.
const MOST_REMEMBERED: usize = 10_000;

/// How many sessions there may be at most of those that count.
pub(crate) type MostOf<'a> = (usize, &'a dyn Fn(&Session) -> bool);

/// What lives and what lived.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    sessions: RwLock<HashMap<SessionName, Arc<Session>>>,
    ended: Mutex<Tombstones>,
}

#[derive(Debug, Clone)]
struct Tombstone {
    owner: UserId,
    loss: Loss,
    at: Instant,
    /// What it ran last, where that was here.
    last: Option<LastExecution>,
}

#[derive(Debug, Default)]
struct Tombstones {
    by_name: HashMap<SessionName, Tombstone>,
    oldest_first: VecDeque<SessionName>,
}

impl Tombstones {
    fn remember(&mut self, name: SessionName, tombstone: Tombstone) {
        while let Some(oldest) = self.oldest_first.front() {
            let old = self
                .by_name
                .get(oldest)
                .is_none_or(|old| tombstone.at.duration_since(old.at) > MEMORY);
            if !old && self.oldest_first.len() < MOST_REMEMBERED {
                break;
            }
            self.by_name.remove(oldest);
            self.oldest_first.pop_front();
        }
        if self.by_name.insert(name, tombstone).is_none() {
            self.oldest_first.push_back(name);
        }
    }

    fn get(&mut self, name: &SessionName, owner: UserId) -> Option<&mut Tombstone> {
        let tombstone = self.by_name.get_mut(name)?;
        (tombstone.owner == owner && tombstone.at.elapsed() <= MEMORY).then_some(tombstone)
    }

    fn loss(&mut self, name: &SessionName, owner: UserId) -> Option<Loss> {
        self.get(name, owner).map(|tombstone| tombstone.loss)
    }
}

impl Registry {
    /// Adds a session, unless as many are there already that count as may be, by any of the limits: that one is returned
    /// then. 0: any number.
    pub(crate) fn add(&self, session: &Arc<Session>, limits: &[MostOf<'_>]) -> Result<(), usize> {
        let mut sessions = self.sessions.write();
        for (most, counts) in limits {
            if *most > 0 && sessions.values().filter(|other| counts(other)).count() >= *most {
                return Err(*most);
            }
        }
        sessions.insert(session.facts.name, Arc::clone(session));
        Ok(())
    }

    /// Takes a session away that goes on at another pooler, and may come back.
    pub(crate) fn moved(&self, session: &Session) {
        self.sessions.write().remove(&session.facts.name);
    }

    /// Remembers the end of a session that was never here.
    pub(crate) fn lost_elsewhere(&self, name: SessionName, owner: UserId, loss: Loss) {
        self.remove(name, owner, loss, None);
    }

    /// Takes a session away and remembers why it ended.
    pub(crate) fn end(&self, session: &Session, loss: Loss) {
        // One that never began is no more than the session.
        let last = session.last_execution().filter(LastExecution::has_ended);
        let last = last.map(LastExecution::closed);
        self.remove(session.facts.name, session.facts.owner, loss, last);
    }

    /// The last execution of a session of the caller that has ended here.
    pub(crate) fn last_execution(&self, name: SessionName, caller: UserId) -> Option<LastExecution> {
        self.ended.lock().get(&name, caller)?.last.clone()
    }

    /// Notes what the server said of a transaction that an execution was to commit.
    pub(crate) fn settle(
        &self,
        name: ExecutionName,
        caller: UserId,
        xid: NonZeroU64,
        outcome: CommitOutcome,
    ) {
        if let Some(session) = self.sessions.read().get(&name.session) {
            session.settle(name.execution, xid, outcome);
        }
        let mut ended = self.ended.lock();
        let last = ended
            .get(&name.session, caller)
            .and_then(|tombstone| tombstone.last.as_mut());
        if let Some(commit) = last.and_then(|last| last.commit_of(name.execution)) {
            commit.settle(xid, outcome);
        }
    }

    fn remove(&self, name: SessionName, owner: UserId, loss: Loss, last: Option<LastExecution>) {
        let tombstone = Tombstone {
            owner,
            loss,
            at: Instant::now(),
            last,
        };
        // In this order it is never neither here nor there.
        self.ended.lock().remember(name, tombstone);
        self.sessions.write().remove(&name);
    }

    /// The caller's session; nothing where it is not here.
    pub(crate) fn find(
        &self,
        name: SessionName,
        caller: UserId,
    ) -> Result<Option<Arc<Session>>, PoolerError> {
        if let Some(session) = self.sessions.read().get(&name)
            && session.facts.owner == caller
        {
            return Ok(Some(Arc::clone(session)));
        }
        match self.ended.lock().loss(&name, caller) {
            Some(loss) => Err(PoolerError::StateLost(loss)),
            None => Ok(None),
        }
    }

    /// True where a session is here, or is remembered to have ended.
    pub(crate) fn knows(&self, name: SessionName) -> bool {
        self.sessions.read().contains_key(&name) || self.ended.lock().by_name.contains_key(&name)
    }

    /// A session of whomever, while it lives.
    pub(crate) fn get(&self, name: SessionName) -> Option<Arc<Session>> {
        self.sessions.read().get(&name).cloned()
    }

    /// The caller's sessions, on one server or on all, by name.
    pub(crate) fn list(&self, caller: UserId, server: Option<ServerId>) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self
            .sessions
            .read()
            .values()
            .filter(|session| session.facts.owner == caller)
            .filter(|session| server.is_none_or(|server| session.facts.name.server == server))
            .cloned()
            .collect();
        sessions.sort_by_key(|session| session.facts.name);
        sessions
    }

    /// All sessions.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.read().values().cloned().collect()
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LossCause;
    use domain::pin::Pins;
    use domain::random::SeededRandom;
    use domain::session::{PoolerId, SessionId};

    const LOSS: Loss = Loss {
        cause: LossCause::IdleTimeout,
        pins: Pins::NONE,
    };

    fn name(random: &SeededRandom) -> SessionName {
        SessionName {
            server: ServerId::generate(random),
            session: SessionId::generate(PoolerId(1), random),
        }
    }

    #[tokio::test]
    async fn end_of_a_session_is_told_to_its_owner_only() {
        let random = SeededRandom::new(1);
        let (owner, other) = (UserId::generate(&random), UserId::generate(&random));
        let name = name(&random);
        let mut tombstones = Tombstones::default();
        let tombstone = Tombstone {
            owner,
            loss: LOSS,
            at: Instant::now(),
            last: None,
        };
        tombstones.remember(name, tombstone);
        assert_eq!(tombstones.loss(&name, owner), Some(LOSS));
        assert_eq!(tombstones.loss(&name, other), None);
    }

    #[tokio::test]
    async fn only_so_many_ends_are_remembered() {
        let random = SeededRandom::new(2);
        let owner = UserId::generate(&random);
        let mut tombstones = Tombstones::default();
        let names: Vec<_> = (0..=MOST_REMEMBERED).map(|_| name(&random)).collect();
        for name in &names {
            let tombstone = Tombstone {
                owner,
                loss: LOSS,
                at: Instant::now(),
                last: None,
            };
            tombstones.remember(*name, tombstone);
        }
        assert_eq!(tombstones.by_name.len(), MOST_REMEMBERED);
        assert_eq!(tombstones.loss(&names[0], owner), None);
        assert_eq!(tombstones.loss(&names[MOST_REMEMBERED], owner), Some(LOSS));
    }
}
