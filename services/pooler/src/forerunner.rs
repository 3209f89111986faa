//! What is known of a pooler that had connections on an instance before this one owned it, as a state machine without IO.
//!
//! It is asked. Refused or reset: its process is gone, and what it left can be ended. An answer: it opens nothing any more
//! and says how many connections it still has. Silence: it may be stopped, cut off or dead; its connections are counted,
//! and ended only after a while; and as long as it is not known to be gone, room is left for what it may be opening.

use std::time::Duration;

use crate::ownership::Uptime;

/// Connections a pooler opens at a time on one instance: the most it can have that it has not recorded yet.
pub(crate) const MOST_IN_FLIGHT: u32 = 4;

/// What is known of another pooler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forerunner {
    /// It may be opening connections that nobody recorded.
    may_open: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was not asked yet.
    Unasked,
    /// It hands over, and had so many connections when it said so.
    HandingOver { connections: u32 },
    /// It does not answer.
    Silent { since: Uptime },
    /// Its process is gone.
    Gone,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It hands over and still has so many connections, whatever they are for.
    HandingOver { connections: u32 },
    /// Nothing, in time.
    Silence,
    /// There is no such process.
    Gone,
}

impl Forerunner {
    /// One that was not asked yet. `may_open`: it did not give the instance back.
    pub(crate) fn unasked(may_open: bool) -> Self {
        Self {
            may_open,
            state: State::Unasked,
        }
    }

    /// What it is after asking.
    pub(crate) fn heard(self, heard: Heard, now: Uptime) -> Self {
        match (self.state, heard) {
            // A process that is gone does not come back.
            (State::Gone, _) | (_, Heard::Gone) => Self {
                may_open: false,
                state: State::Gone,
            },
            (_, Heard::HandingOver { connections }) => Self {
                may_open: false,
                state: State::HandingOver { connections },
            },
            (State::Silent { .. }, Heard::Silence) => self,
            (State::Unasked | State::HandingOver { .. }, Heard::Silence) => Self {
                may_open: self.may_open,
                state: State::Silent { since: now },
            },
        }
    }

    /// The most connections it can have, where so many of it are recorded.
    pub(crate) fn counted(self, recorded: u32) -> u32 {
        match self.state {
            State::HandingOver { connections } => connections,
            State::Unasked | State::Silent { .. } | State::Gone => recorded + self.withheld(),
        }
    }

    /// Connections left room for beyond those recorded.
    pub(crate) fn withheld(self) -> u32 {
        if self.may_open { MOST_IN_FLIGHT } else { 0 }
    }

    /// True where its recorded connections and its sessions may be ended or taken over.
    pub(crate) fn is_over(self, now: Uptime, grace: Duration) -> bool {
        match self.state {
            State::Gone => true,
            State::Silent { since } => now.saturating_sub(since) >= grace,
            State::Unasked | State::HandingOver { .. } => false,
        }
    }

    /// True where it is known to be gone.
    pub(crate) fn is_gone(self) -> bool {
        self.state == State::Gone
    }

    /// True where nobody has asked it yet.
    pub(crate) fn is_unasked(self) -> bool {
        self.state == State::Unasked
    }

    /// True where it does not answer.
    pub(crate) fn is_silent(self) -> bool {
        matches!(self.state, State::Silent { .. })
    }

    /// True where it serves its sessions, and can be asked for them.
    pub(crate) fn answers(self) -> bool {
        matches!(self.state, State::HandingOver { .. })
    }

    /// True where it opens nothing any more and has nothing either.
    pub(crate) fn has_nothing(self) -> bool {
        self.state == State::HandingOver { connections: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Uptime = Duration::from_secs(1000);

    #[test]
    fn one_that_is_silent_is_counted_with_room_for_what_it_may_open() {
        let silent = Forerunner::unasked(true).heard(Heard::Silence, NOW);
        assert_eq!(silent.counted(3), 3 + MOST_IN_FLIGHT);
        let grace = Duration::from_secs(30);
        assert!(!silent.is_over(NOW, grace));
        let later = silent.heard(Heard::Silence, NOW + grace);
        assert!(later.is_over(NOW + grace, grace), "silent since the first time");
        assert_eq!(later.counted(0), MOST_IN_FLIGHT, "it may still be there");
    }

    #[test]
    fn one_that_answers_opens_nothing_and_one_that_is_gone_does_not_come_back() {
        let handing = Forerunner::unasked(true).heard(Heard::HandingOver { connections: 2 }, NOW);
        assert_eq!((handing.counted(5), handing.withheld()), (2, 0));
        assert!(handing.answers() && !handing.is_over(NOW, Duration::ZERO));
        assert_eq!(handing.heard(Heard::Silence, NOW).counted(5), 5);
        let gone = handing.heard(Heard::Gone, NOW);
        assert_eq!(gone.heard(Heard::HandingOver { connections: 1 }, NOW), gone);
    }
}
