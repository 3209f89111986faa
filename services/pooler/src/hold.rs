//! What holds a session on its backend, as far as is known, and when it has to be looked at.
//!
//! A state machine without IO, one for each backend. Told what is about to run, how the server stood afterwards and
//! what a look showed, it says which pins hold and whether a look is needed before anybody is told so. Invariants: what
//! a look shows is believed over what a text seemed to say; what no look shows stays until the backend is closed; a
//! backend that ran anything since the last look is never called clean.

use domain::pin::{Pin, Pins};
use domain::sql::Effects;
use pgconn::TransactionStatus;

/// What is known of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    keeping: Keeping,
    transaction: TransactionStatus,
    /// A suspended portal is open.
    portal: bool,
    /// What the last look showed.
    found: Pins,
    /// The text of what ran since the last look says that another would show something else.
    doubtful: bool,
    /// Anything ran since the last look.
    used: bool,
    /// It has state that no look shows.
    sticky: bool,
    /// It has traces that no reset ends.
    tainted: bool,
}

/// How long its session stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// For life, whatever it holds, so nobody looks.
    ForLife,
    /// As long as it holds something.
    WhilePinned,
    /// For one script. Whatever that leaves is reset, so nobody looks.
    Once,
}

/// What follows once the server is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask the backend what it holds.
    Look,
    /// These hold. None: the backend is not needed until the next statement.
    Holds(Pins),
}

impl Hold {
    /// A new backend of a session that keeps it for life.
    pub(crate) fn for_life() -> Self {
        Self {
            keeping: Keeping::ForLife,
            ..Self::clean()
        }
    }

    /// A backend that is new or was reset, for one script.
    pub(crate) fn once() -> Self {
        Self {
            keeping: Keeping::Once,
            ..Self::clean()
        }
    }

    /// A backend that is new or was reset.
    pub(crate) fn clean() -> Self {
        Self {
            keeping: Keeping::WhilePinned,
            transaction: TransactionStatus::Idle,
            portal: false,
            found: Pins::NONE,
            doubtful: false,
            used: false,
            sticky: false,
            tainted: false,
        }
    }

    /// True where it matters what a script's text says.
    pub(crate) fn reads_scripts(&self) -> bool {
        self.keeping != Keeping::ForLife
    }

    /// Something with these effects is about to run.
    pub(crate) fn runs(&mut self, effects: Effects) {
        self.used = true;
        self.doubtful |= effects.leaves || effects.ends && !self.found.is_empty();
        self.sticky |= effects.sticks;
        self.tainted |= effects.taints || effects.sticks;
    }

    /// The server reported a changed run-time parameter.
    pub(crate) fn parameter_changed(&mut self) {
        self.doubtful = true;
    }

    /// A portal was suspended, or is no more.
    pub(crate) fn portal(&mut self, suspended: bool) {
        self.portal = suspended;
    }

    /// The server is ready.
    pub(crate) fn ready(&mut self, transaction: TransactionStatus) -> Verdict {
        self.transaction = transaction;
        // Inside a transaction a look is not needed, and in a failed one not possible. With a portal open it would be the end
        // of that.
        let open = self.portal || transaction != TransactionStatus::Idle;
        let look = self.doubtful && self.keeping == Keeping::WhilePinned && !open;
        if look {
            Verdict::Look
        } else {
            Verdict::Holds(self.pins())
        }
    }

    /// A look showed this.
    pub(crate) fn found(&mut self, found: Pins) {
        self.found = found;
        self.doubtful = false;
        self.used = false;
    }

    /// A look was refused by the server: what nobody can see must be assumed to be there.
    pub(crate) fn hidden(&mut self) {
        self.doubtful = false;
        self.sticky = true;
        self.tainted = true;
    }

    /// What holds the session here, as far as is known.
    pub(crate) fn pins(&self) -> Pins {
        self.found
            .with_if(self.keeping == Keeping::ForLife, Pin::Mode)
            .with_if(self.transaction != TransactionStatus::Idle, Pin::Transaction)
            .with_if(self.portal, Pin::Portal)
            .with_if(self.sticky, Pin::Sticky)
    }

    /// True where something ran that may have left what only a look shows.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// True where a reset leaves nothing of what is known.
    pub(crate) fn can_be_reset(&self) -> bool {
        !self.tainted
    }
}

#[cfg(test)]
mod tests;
