//! Clients that are no sessions: scripts without one, and those who wait for a connection that is to be theirs alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::ledger::Class;
use crate::roster::Place;
use crate::session::Session;

/// A client that is no session of the registry.
#[derive(Debug, Clone)]
pub(crate) enum Visitor {
    /// A script, as the session it is made of.
    Script(Arc<Session>),
    /// A connection is being opened.
    Opening(Arc<Opening>),
}

/// A connection somebody waits for.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) place: Place,
    pub(crate) holder: String,
    pub(crate) class: Class,
    pub(crate) create_time: OffsetDateTime,
    pub(crate) since: Instant,
}

/// All of them. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visitors(Arc<Mutex<Present>>);

#[derive(Debug, Default)]
struct Present {
    by_number: BTreeMap<u64, Visitor>,
    last: u64,
}

impl Visitors {
    /// Shows a client until the visit is dropped.
    pub(crate) fn enter(&self, visitor: Visitor) -> Visit {
        let mut present = self.0.lock();
        present.last += 1;
        let number = present.last;
        present.by_number.insert(number, visitor);
        Visit {
            visitors: self.clone(),
            number,
        }
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Visitor> {
        self.0.lock().by_number.values().cloned().collect()
    }
}

/// A client's presence.
#[derive(Debug)]
pub(crate) struct Visit {
    visitors: Visitors,
    number: u64,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visitors.0.lock().by_number.remove(&self.number);
    }
}
