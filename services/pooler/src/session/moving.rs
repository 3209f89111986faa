//! A session that another pooler goes on with: letting go of it, and what the other has to know of how it stands.

use std::time::Duration;

use store::sessions::Standing;

use super::Session;
use super::state::{State, Written};

/// Pins that hold for less are not written down.
const PASSING: Duration = Duration::from_secs(1);

impl Session {
    /// Begins to let go of it, if nothing holds it. Until [`Session::moved`] or [`Session::stays`] it is given nothing to do.
    pub(crate) fn begin_move(&self) -> Option<Standing> {
        let shared = self.pool().is_some() && self.facts.script.is_none();
        let (standing, rests_at) = {
            let mut state = self.state.lock();
            let free = state.busy.is_none()
                && state.work.is_none()
                && state.end.is_none()
                && state.returned.is_none()
                && state.pins.is_empty()
                // What it gave up is still on its backend.
                && !state.discards
                && !state.moving;
            if !(shared && free) {
                return None;
            }
            state.moving = true;
            (self.standing(&state), state.rests_at.clone())
        };
        // Not under the session's lock: who looks after idle backends takes the two the other way round.
        let name = self.facts.name;
        if rests_at.is_some_and(|instance| instance.idle.lock().has(name)) {
            self.stays();
            return None;
        }
        Some(standing)
    }

    /// It could not be let go of.
    pub(crate) fn stays(&self) {
        self.state.lock().moving = false;
        self.settled.notify_waiters();
    }

    /// It is another pooler's.
    pub(crate) fn moved(&self) {
        self.watchers.end();
        self.ended.cancel();
        self.settled.notify_waiters();
    }

    /// True while it is being let go of.
    pub(crate) fn is_moving(&self) -> bool {
        self.state.lock().moving
    }

    /// Waits until it is decided whether it moves.
    pub(crate) async fn move_settled(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if !self.state.lock().moving || self.ended.is_cancelled() {
                return;
            }
            settled.await;
        }
    }

    /// What others have to know of how it stands.
    pub(crate) fn written(&self) -> Standing {
        self.standing(&self.state.lock())
    }

    fn standing(&self, state: &State) -> Standing {
        Standing {
            id: self.facts.name.session,
            incarnation: state.incarnation,
            untold: state.untold,
            pins: state.pins,
            request: state.request,
        }
    }

    /// How it stands, where others know it otherwise. Pins count once they have held for a while: what comes and goes with
    /// every transaction would keep the config database busy and tell nobody anything.
    pub(crate) fn news(&self) -> Option<Standing> {
        let mut state = self.state.lock();
        let known = state.written.pins == state.pins
            && state.written.incarnation == state.incarnation
            && state.written.untold == state.untold;
        let passing = !state.pins.is_empty() && state.pins_since.elapsed() < PASSING;
        let private = self.facts.script.is_some();
        if known || passing || private || state.moving || state.end.is_some() {
            return None;
        }
        state.written = Written {
            pins: state.pins,
            incarnation: state.incarnation,
            untold: state.untold,
        };
        Some(self.standing(&state))
    }
}
