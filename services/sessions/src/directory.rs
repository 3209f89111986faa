//! Which poolers there are and which of them owns which instance, as last read from the config database.
//!
//! Whoever can read the config database keeps it fresh; a call only ever looks at the copy in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::id::{IncarnationId, InstanceId};
use domain::session::PoolerId;

/// A pooler that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolerEntry {
    /// Its number.
    pub pooler: PoolerId,
    /// The process; another one means every session of the last is gone.
    pub incarnation: IncarnationId,
    /// Where its internal gRPC listens, as `host:port`.
    pub address: String,
    /// False while it drains, or gives no sign of life: it may serve what it has and takes nothing new.
    pub takes_new_sessions: bool,
    /// True while it gives signs of life.
    pub is_alive: bool,
}

/// What was known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The poolers that are alive, or were so lately.
    pub poolers: Vec<PoolerEntry>,
    /// The owners.
    pub owners: HashMap<InstanceId, PoolerId>,
}

/// The shared, replaceable copy.
#[derive(Debug, Clone, Default)]
pub struct Directory(Arc<ArcSwap<Snapshot>>);

impl Directory {
    /// Puts a newer copy in place.
    pub fn replace(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }

    /// The copy as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}
