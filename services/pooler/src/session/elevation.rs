//! A session that may write while its owner is elevated: how it comes to, and how it ceases.
//!
//! Invariant: what it may do changes only where it holds no backend, or together with giving up the one it holds. So a backend
//! is chosen, and used, by one access. Who decides is [`crate::rights`], by what this pooler read itself.

use rpc::query::v1::TransactionStatus;

use domain::access::Access;
use domain::pin::Pins;

use super::state::State;
use super::{Needs, Seat, Session};
use crate::backend::Backend;

impl Session {
    /// Has it write if its owner is elevated and nothing holds it, and only read once that is over. Called before each call.
    pub(crate) fn settle_access(&self) -> Needs {
        let rights = &self.facts.rights;
        if !rights.follows_elevations() {
            return Needs::Nothing;
        }
        let elevated = rights.may_be_raised(self.clock.now());
        if rights.is_raised() && !elevated {
            return self.fall();
        }
        if elevated && !rights.is_raised() {
            let state = self.state.lock();
            let is_free = state.busy.is_none()
                && state.work.is_none()
                && state.end.is_none()
                && state.returned.is_none()
                && state.pins.is_empty()
                && !state.discards
                && !state.moving;
            if is_free {
                rights.set_raised(true);
                tracing::info!(session.id = %self.facts.name.session, "a session may write for a while");
            }
        }
        Needs::Nothing
    }

    /// Has it only read from now on: what it runs is cancelled, and what holds it on its backend is given up with that.
    pub(crate) fn fall(&self) -> Needs {
        let mut state = self.state.lock();
        if !self.facts.rights.is_raised() || state.falls || state.end.is_some() {
            return Needs::Nothing;
        }
        tracing::info!(session.id = %self.facts.name.session, pins = %state.pins, "a session may only read again");
        if state.busy.is_some() {
            // Under the lock: it is this execution and no other. What follows from it follows at its end.
            state.falls = true;
            self.control.fall();
            return Needs::Nothing;
        }
        self.facts.rights.set_raised(false);
        if state.pins.is_empty() && state.returned.is_none() {
            return Needs::Nothing;
        }
        self.give_up(&mut state, false);
        self.call(state)
    }

    /// An execution has ended, or came to nothing, while it was to fall. `told` says that somebody sees why.
    pub(super) fn fallen(&self, state: &mut State, told: bool) {
        self.facts.rights.set_raised(false);
        if !state.pins.is_empty() && state.end.is_none() {
            self.give_up(state, told);
        }
    }

    /// What held it on its backend is no more, and so is what it listened to: who follows its notifications sees that they end.
    fn give_up(&self, state: &mut State, told: bool) {
        state.give_up(told);
        self.watchers.end();
    }

    /// True while its task is to close the backend that it holds.
    pub(super) fn must_discard(&self) -> bool {
        self.state.lock().discards
    }

    /// What its task is to close.
    pub(super) fn take_discarded(&self, held: &mut Option<Seat>) -> Option<Seat> {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.discards) {
            return None;
        }
        held.take().or_else(|| state.returned.take())
    }

    /// Whether a backend with state of the session, which rested with it, is still of use to it.
    pub(crate) fn keeps(&self, backend: &Backend) -> bool {
        self.takes_back(&mut self.state.lock(), backend.access)
    }

    /// Whether a backend that state of the session was found on is of use to it. One that it used to write is not once it may
    /// only read; where it is the other way round, the session is held and goes on reading.
    pub(super) fn takes_back(&self, state: &mut State, used_to: Access) -> bool {
        let rights = &self.facts.rights;
        match (used_to, rights.access()) {
            (Access::ReadWrite, Access::ReadOnly) => {
                self.give_up(state, false);
                state.discards = false;
                false
            }
            (Access::ReadOnly, Access::ReadWrite) if rights.is_raised() => {
                rights.set_raised(false);
                true
            }
            _ => true,
        }
    }
}

impl State {
    /// What held the session on its backend is no more.
    fn give_up(&mut self, told: bool) {
        self.discards = true;
        self.suspended = None;
        self.transaction = TransactionStatus::Idle;
        self.transaction_since = None;
        self.set_pins(Pins::NONE);
        self.backend_pid = 0;
        self.incarnation += 1;
        self.untold = !told;
        self.fell = !told;
    }
}
