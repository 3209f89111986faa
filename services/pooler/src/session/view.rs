//! A session as it is listed.

use std::sync::Arc;

use domain::pin::Pins;
use rpc::query::v1::TransactionStatus;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Control, Session};
use crate::backend::Backend;
use crate::ledger::Ticket;
use crate::roster::{Holder, Place, Use};
use crate::slots::Slots;

/// How a session or a script stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It runs something on a backend.
    Active,
    /// As active, and that is being cancelled.
    Cancelling,
    /// It runs nothing.
    Idle,
    /// It is without the backend it needs.
    Waiting,
}

/// What is listed of a session at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) activity: Activity,
    pub(crate) pins: Pins,
    pub(crate) transaction: TransactionStatus,
    pub(crate) waits_since: Option<Instant>,
    /// Its place in the queue of those slots.
    pub(crate) waits_for: Option<(Slots, Ticket)>,
    pub(crate) last_use_time: OffsetDateTime,
    /// True once it is to end.
    pub(crate) ending: bool,
}

impl Session {
    /// As it is listed now.
    pub(crate) fn view(&self) -> View {
        let state = self.state.lock();
        // A script runs as long as it is there.
        let busy = state.busy.is_some() || self.facts.script.is_some();
        View {
            activity: match (busy, state.waits_since) {
                (_, Some(_)) => Activity::Waiting,
                (true, None) if self.control.is_cancelled() => Activity::Cancelling,
                (true, None) => Activity::Active,
                (false, None) => Activity::Idle,
            },
            pins: state.pins,
            transaction: state.transaction,
            waits_since: state.waits_since,
            waits_for: state.waits_for.clone(),
            last_use_time: state.last_use_time,
            ending: state.end.is_some(),
        }
    }

    /// Where its backends lead.
    pub(crate) fn place(&self) -> Place {
        let instance = match self.pool() {
            None => self.facts.instance.id,
            Some(pool) => pool.key.instance,
        };
        let (database, username) = self.database_and_role();
        Place {
            instance,
            server: self.facts.name.server,
            database: database.to_string(),
            username: username.to_string(),
            owner: self.facts.owner,
        }
    }

    /// How others see who has a backend of it.
    pub(crate) fn as_holder(&self) -> Holder {
        let name = self.facts.name;
        match self.facts.script {
            Some(script) => Holder::Script(name.server, script),
            None => Holder::Session(name),
        }
    }

    /// Shows that a backend is this session's.
    pub(crate) fn holds(&self, backend: &Backend) {
        self.holds_by(backend, &self.control);
    }

    /// As [`Session::holds`], where another control reaches what runs on it.
    pub(crate) fn holds_by(&self, backend: &Backend, control: &Control) {
        backend.set_use(Use::Active(self.as_holder(), Arc::clone(&control.bell)));
    }

    /// Says since when it is without the backend it needs.
    pub(crate) fn set_waits_since(&self, since: Option<Instant>) {
        self.state.lock().waits_since = since;
    }
}
