//! Sessions that were found elsewhere than their ids say, because they moved since they were opened.

use std::collections::HashMap;
use std::sync::Arc;

use domain::session::{PoolerId, SessionId};
use parking_lot::RwLock;

/// Sessions remembered at most. One that is forgotten is found again by asking.
const MOST: usize = 100_000;

/// Read by every call and written only where a session was found at another pooler than it was asked for at.
#[derive(Debug, Clone, Default)]
pub(super) struct Found(Arc<RwLock<HashMap<SessionId, PoolerId>>>);

impl Found {
    /// Where to ask for a session first.
    pub(super) fn holder(&self, session: SessionId) -> PoolerId {
        let found = self.0.read().get(&session).copied();
        found.unwrap_or_else(|| session.pooler_hint())
    }

    /// Notes who answered for a session that was asked for elsewhere at first.
    pub(super) fn note(&self, session: SessionId, holder: PoolerId) {
        let mut found = self.0.write();
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
        if self.0.read().contains_key(&session) {
            self.0.write().remove(&session);
        }
    }
}
