//! How often it was looked, and what it came to.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a role is kept within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Reading.
    ReadOnly,
    /// The databases that are allowed.
    Tenancy,
}

impl Bound {
    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Tenancy => "tenancy",
        }
    }
}

/// Counts since the pooler began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    looked: AtomicU64,
    failed: AtomicU64,
    lost_read_only: AtomicU64,
    lost_tenancy: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InspectionFigures {
    /// Looks that found something out.
    pub(crate) looked: u64,
    /// Looks of the schedule that came to nothing.
    pub(crate) failed: u64,
    /// Roles that PostgreSQL kept from writing, and does not any more.
    pub(crate) lost_read_only: u64,
    /// Roles that PostgreSQL kept within their databases, and does not any more.
    pub(crate) lost_tenancy: u64,
}

impl Counts {
    pub(crate) fn looked(&self) {
        self.looked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self, bound: Bound) {
        let count = match bound {
            Bound::ReadOnly => &self.lost_read_only,
            Bound::Tenancy => &self.lost_tenancy,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> InspectionFigures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        InspectionFigures {
            looked: read(&self.looked),
            failed: read(&self.failed),
            lost_read_only: read(&self.lost_read_only),
            lost_tenancy: read(&self.lost_tenancy),
        }
    }
}
