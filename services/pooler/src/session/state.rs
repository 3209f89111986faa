//! How a session stands. Under the session's lock, always.

use std::sync::Arc;

use domain::id::ExecutionId;
use domain::pin::Pins;
use rpc::query::v1::TransactionStatus;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::record::Record;
use super::{Seat, Work};
use crate::error::{Loss, LossCause, PoolerError};
use crate::instances::Instance;
use crate::ledger::Ticket;
use crate::slots::Slots;

pub(super) struct State {
    /// A task serves it. An AUTO session has none while there is nothing to do.
    pub(super) served: bool,
    pub(super) busy: Option<ExecutionId>,
    pub(super) work: Option<Work>,
    /// The execution whose portal is open.
    pub(super) suspended: Option<Portal>,
    /// Why it ends, from the moment that is decided.
    pub(super) end: Option<Loss>,
    pub(super) transaction: TransactionStatus,
    /// Since when a transaction is open.
    pub(super) transaction_since: Option<Instant>,
    /// What holds it on its backend.
    pub(super) pins: Pins,
    pub(super) backend_pid: i32,
    pub(super) incarnation: i64,
    /// It was recovered, and nobody was told yet.
    pub(super) untold: bool,
    /// That was because an elevation ended.
    pub(super) fell: bool,
    /// It is to read only once its execution is over.
    pub(super) falls: bool,
    /// Its task is to close the backend it holds.
    pub(super) discards: bool,
    /// It is on its way to another pooler.
    pub(super) moving: bool,
    /// What of it was written down for other poolers.
    pub(super) written: Written,
    /// Since when the same pins hold.
    pub(super) pins_since: Instant,
    /// Its backend, given back because it holds state.
    pub(super) returned: Option<Seat>,
    /// Where the backend it used last may be at rest.
    pub(super) rests_at: Option<Arc<Instance>>,
    /// What it waits for.
    pub(super) waits_for: Option<(Slots, Ticket)>,
    /// Since when it is without the backend it needs.
    pub(super) waits_since: Option<Instant>,
    pub(super) last_use: Instant,
    pub(super) last_use_time: OffsetDateTime,
    pub(super) record: Option<Record>,
    /// What its last execution was asked for with.
    pub(super) request: Option<Uuid>,
}

/// A portal that is suspended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portal {
    pub(super) execution: ExecutionId,
    /// The number of the last event that came of it.
    pub(super) after: i64,
}

/// How far other poolers know of a session.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) pins: Pins,
    pub(super) incarnation: i64,
    pub(super) untold: bool,
}

impl State {
    pub(super) fn alive(&self) -> Result<(), PoolerError> {
        match self.end {
            Some(loss) => Err(PoolerError::StateLost(loss)),
            None => Ok(()),
        }
    }

    pub(super) fn set_pins(&mut self, pins: Pins) {
        if self.pins != pins {
            self.pins = pins;
            self.pins_since = Instant::now();
        }
    }

    pub(super) fn end_for(&mut self, cause: LossCause) -> Loss {
        let pins = self.pins;
        *self.end.get_or_insert(Loss { cause, pins })
    }

    /// Refuses a call whose caller does not know that the session was recovered.
    pub(super) fn tell_incarnation(&mut self, known: i64) -> Result<(), PoolerError> {
        let untold = std::mem::take(&mut self.untold);
        let fell = std::mem::take(&mut self.fell);
        let knows = match known {
            0 => !untold,
            known => known == self.incarnation,
        };
        if knows { Ok(()) } else { Err(self.recovered(fell)) }
    }

    /// What tells of its incarnation. It `fell` where an elevation ended.
    pub(super) fn recovered(&self, fell: bool) -> PoolerError {
        let current = self.incarnation;
        match fell {
            true => PoolerError::ElevationEnded { current },
            false => PoolerError::SessionRecovered { current },
        }
    }

    pub(super) fn touch(&mut self, now: OffsetDateTime) {
        self.last_use = Instant::now();
        self.last_use_time = now;
    }
}
