//! By which revision of the rules a call is decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The revision of roles, bindings, groups, grants, elevations, policies and owners that a call is decided by: the one that was
/// known when it was let in, or the later one at which a server's rules were read for it. What is heard of while the call goes
/// on does not change it. Clones are the same call's.
#[derive(Debug, Clone, Default)]
pub struct DecidedBy(Arc<AtomicI64>);

impl DecidedBy {
    /// As known when the call is let in.
    #[must_use]
    pub fn at(revision: i64) -> Self {
        Self(Arc::new(AtomicI64::new(revision)))
    }

    /// Rules were read for the call.
    pub fn read(&self, revision: i64) {
        self.0.fetch_max(revision, Ordering::Relaxed);
    }

    /// The revision; 0 where nothing was decided.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whoever calls is the same by whatever rules it is decided what they may.
impl PartialEq for DecidedBy {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for DecidedBy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_decided_by_the_latest_that_was_read_for_it() {
        let decided_by = DecidedBy::at(7);
        decided_by.read(6);
        assert_eq!(decided_by.revision(), 7);
        decided_by.clone().read(9);
        assert_eq!(decided_by.revision(), 9);
    }
}
