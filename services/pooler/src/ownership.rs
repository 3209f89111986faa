//! How an instance stands with this pooler, as a state machine without IO.
//!
//! OWNER → LAPSED → SUPERSEDED: an owner opens connections; one whose lease has run out serves what it has and opens
//! nothing, not even a replacement; one that was superseded, or gave the instance back, hands over what it has.
//!
//! Invariant: by this pooler's own clock, which counts time asleep, a lease ends no later than by the config database's:
//! it is reckoned from the moment the claim was sent. So of two poolers that both believe to own an instance there is
//! none.

use std::time::Duration;

/// Points in time are what [`domain::clock::Clock::uptime`] says.
pub(crate) type Uptime = Duration;

/// How an instance stands with this pooler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ownership {
    /// Never claimed.
    #[default]
    Unclaimed,
    /// Claimed, for so long.
    Claimed {
        /// The ownership's number.
        term: u64,
        /// When the lease runs out.
        until: Uptime,
    },
    /// About to be given back: nothing more is opened.
    Leaving {
        /// The ownership's number.
        term: u64,
    },
    /// Given back, or somebody else's.
    Superseded {
        /// The last term known. What is said of it, or of an earlier one, comes too late.
        term: u64,
    },
}

/// What an [`Ownership`] means at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has nothing to do with the instance.
    Stranger,
    /// It may open connections.
    Owner,
    /// It serves what it has and opens nothing.
    Lapsed,
    /// It hands over what it has.
    Superseded,
}

impl Ownership {
    /// What it means now.
    pub(crate) fn standing(self, now: Uptime) -> Standing {
        match self {
            Self::Unclaimed => Standing::Stranger,
            Self::Claimed { until, .. } if now < until => Standing::Owner,
            Self::Claimed { .. } => Standing::Lapsed,
            Self::Leaving { .. } | Self::Superseded { .. } => Standing::Superseded,
        }
    }

    /// The instance was claimed by a request sent at `sent`.
    pub(crate) fn claimed(self, granted: u64, sent: Uptime, lease: Duration) -> Self {
        let until = sent + lease;
        match self {
            // The wish to leave came while the claim was under way, and stands.
            Self::Leaving { term } => Self::Leaving {
                term: term.max(granted),
            },
            Self::Superseded { term } if granted <= term => self,
            Self::Claimed { term, until: known } if granted == term => Self::Claimed {
                term,
                until: until.max(known),
            },
            Self::Claimed { term, .. } if granted < term => self,
            Self::Unclaimed | Self::Claimed { .. } | Self::Superseded { .. } => {
                Self::Claimed { term: granted, until }
            }
        }
    }

    /// A renewal sent at `sent` was granted.
    pub(crate) fn renewed(self, granted: u64, sent: Uptime, lease: Duration) -> Self {
        match self {
            Self::Claimed { term, until } if term == granted => Self::Claimed {
                term,
                until: until.max(sent + lease),
            },
            // An answer that was overtaken by something else says nothing.
            other => other,
        }
    }

    /// A renewal sent at `sent` was refused. A claim that was sent later is not meant.
    pub(crate) fn refused(self, sent: Uptime, lease: Duration) -> Self {
        match self {
            Self::Claimed { term, until } if until <= sent + lease => Self::Superseded { term },
            other => other,
        }
    }

    /// Another pooler says that it owns the instance in this term.
    pub(crate) fn superseded(self, by: u64) -> Self {
        match self {
            Self::Claimed { term, .. } | Self::Leaving { term } if term >= by => self,
            Self::Superseded { term } => Self::Superseded { term: term.max(by) },
            Self::Unclaimed | Self::Claimed { .. } | Self::Leaving { .. } => Self::Superseded { term: by },
        }
    }

    /// The instance is to be given back.
    pub(crate) fn leaving(self) -> Self {
        match self {
            Self::Claimed { term, .. } => Self::Leaving { term },
            other => other,
        }
    }

    /// It was given back.
    pub(crate) fn given_back(self) -> Self {
        match self {
            Self::Leaving { term } => Self::Superseded { term },
            other => other,
        }
    }

    /// The term that is to be given back.
    pub(crate) fn term_to_give_back(self) -> Option<u64> {
        match self {
            Self::Leaving { term } => Some(term),
            Self::Unclaimed | Self::Claimed { .. } | Self::Superseded { .. } => None,
        }
    }

    /// The term in which it is claimed.
    pub(crate) fn term(self) -> Option<u64> {
        match self {
            Self::Claimed { term, .. } | Self::Leaving { term } => Some(term),
            Self::Unclaimed | Self::Superseded { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
