//! Sessions that were found elsewhere than their ids say, because they moved since they were opened.

use std::collections::HashMap;
use std::sync::Arc;

use domain::session::{PoolerId, SessionId};
use parking_lot::Mutex;

/// Sessions remembered at most. One that is forgotten is found again by asking.
const MOST: usize = 100_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Found(Arc<Mutex<HashMap<SessionId, PoolerId>>>);

impl Found {
    /// Where to ask for a session first.
    pub(super) fn holder(&self, session: SessionId) -> PoolerId {
        let found = self.0.lock().get(&session).copied();
        found.unwrap_or_else(|| session.pooler_hint())
    }

    /// Notes who answered for a session.
    pub(super) fn note(&self, session: SessionId, holder: PoolerId) {
        let mut found = self.0.lock();
        if holder == session.pooler_hint() {
            found.remove(&session);
            return;
        }
        if found.len() >= MOST && !found.contains_key(&session) {
            found.clear();
        }
        found.insert(session, holder);
    }

    /// Forgets a session that is no more.
    pub(super) fn forget(&self, session: SessionId) {
        self.0.lock().remove(&session);
    }
}
