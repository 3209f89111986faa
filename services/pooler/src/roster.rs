//! The connections to PostgreSQL as others than their holders see them: what each is for, and a way to reach whoever has it.
//!
//! Invariant: a connection is listed from the moment it is begun until the server has let go of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use domain::id::{ExecutionId, InstanceId, ServerId, UserId};
use domain::session::SessionName;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::tally::Tally;

/// Where a client's backends lead: what PgBouncer calls a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) instance: InstanceId,
    pub(crate) server: ServerId,
    pub(crate) database: String,
    pub(crate) username: String,
    pub(crate) owner: UserId,
}

/// Who has a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Session(SessionName),
    Script(ServerId, ExecutionId),
    /// A connection of ours that is neither, for example to test a server.
    Other(Arc<str>),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(name) => name.fmt(f),
            Self::Script(server, script) => write!(f, "servers/{server}/scripts/{script}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What a connection is for at the moment.
#[derive(Debug, Clone)]
pub(crate) enum Use {
    /// It is being made.
    Login,
    /// Somebody has it. The bell wakes them.
    Active(Holder, Arc<Notify>),
    /// Nobody has it. The session, if any, gets it back as it is.
    Resting(Option<SessionName>),
    /// It is looked at or reset.
    Tested,
    /// It was closed.
    Closing,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Listing {
    number: u64,
    pub(crate) place: Place,
    pub(crate) create_time: OffsetDateTime,
    pub(crate) tally: Arc<Tally>,
    process_id: AtomicI32,
    close_needed: AtomicBool,
    killed: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
    standing: Mutex<Standing>,
}

#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) used_for: Use,
    /// Since when it is used for that.
    pub(crate) since: Instant,
    /// When somebody last got it.
    pub(crate) taken: Option<Instant>,
}

impl Listing {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its process on the server; 0 while it is being made.
    pub(crate) fn process_id(&self) -> i32 {
        self.process_id.load(Ordering::Relaxed)
    }

    pub(crate) fn connected(&self, process_id: i32, address: SocketAddr) {
        self.process_id.store(process_id, Ordering::Relaxed);
        self.standing.lock().address = Some(address);
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    pub(crate) fn set_use(&self, used_for: Use) {
        let now = Instant::now();
        let mut standing = self.standing.lock();
        if let Use::Active(..) = used_for {
            standing.taken = Some(now);
        }
        standing.used_for = used_for;
        standing.since = now;
    }

    /// Has it closed as soon as nobody needs it.
    pub(crate) fn close_when_free(&self) {
        self.close_needed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_close_needed(&self) -> bool {
        self.close_needed.load(Ordering::Relaxed)
    }

    /// Has it closed now. Whoever has it is woken.
    pub(crate) fn kill(&self) {
        self.close_when_free();
        // Before its use is looked at: who gets it from here on sees that it is killed.
        self.killed.store(true, Ordering::SeqCst);
        if let Use::Active(_, bell) = &self.standing.lock().used_for {
            bell.notify_one();
        }
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Notes how much has passed in all, and counts what is new.
    pub(crate) fn passed(&self, (received, sent): (u64, u64)) {
        let before = (
            self.received.swap(received, Ordering::Relaxed),
            self.sent.swap(sent, Ordering::Relaxed),
        );
        // What a client sends is what the server receives.
        self.tally
            .passed(sent.saturating_sub(before.1), received.saturating_sub(before.0));
    }

    /// As [`Listing::passed`], for what is no client's.
    pub(crate) fn passed_unseen(&self, (received, sent): (u64, u64)) {
        self.received.store(received, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
    }

    /// Bytes received from the server and sent to it.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }
}

/// All connections. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(Arc<Mutex<Connections>>);

#[derive(Debug, Default)]
struct Connections {
    by_number: BTreeMap<u64, Arc<Listing>>,
    last: u64,
}

impl Roster {
    /// Lists a connection that is about to be made.
    pub(crate) fn enlist(&self, place: Place, tally: Arc<Tally>, now: OffsetDateTime) -> Listed {
        let mut connections = self.0.lock();
        connections.last += 1;
        let listing = Arc::new(Listing {
            number: connections.last,
            place,
            create_time: now,
            tally,
            process_id: AtomicI32::new(0),
            close_needed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            standing: Mutex::new(Standing {
                address: None,
                used_for: Use::Login,
                since: Instant::now(),
                taken: None,
            }),
        });
        connections.by_number.insert(listing.number, Arc::clone(&listing));
        Listed {
            roster: self.clone(),
            listing,
        }
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Listing>> {
        self.0.lock().by_number.values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().by_number.len()
    }
}

/// A place in the roster, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    roster: Roster,
    listing: Arc<Listing>,
}

impl std::ops::Deref for Listed {
    type Target = Listing;

    fn deref(&self) -> &Listing {
        &self.listing
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.roster.0.lock().by_number.remove(&self.listing.number);
    }
}
