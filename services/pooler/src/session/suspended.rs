//! A session whose last execution is suspended: it can be gone on with, or closed.

use domain::id::ExecutionId;
use rpc::query::v1::ExecutionOutcome;

use super::{Needs, Session, Work};
use crate::error::PoolerError;

impl Session {
    /// The number of the last event of that execution, which is suspended.
    pub(crate) fn suspended_after(&self, execution: ExecutionId) -> Result<i64, PoolerError> {
        let mut state = self.state.lock();
        state.alive()?;
        let portal = state.suspended.filter(|portal| portal.execution == execution);
        match (portal, state.busy) {
            (Some(portal), _) => Ok(portal.after),
            (None, Some(_)) => Err(PoolerError::SessionBusy),
            (None, None) => {
                // Where an elevation took it along, this call is the one that is told.
                let is_last = state.record.as_ref().is_some_and(|record| record.id == execution);
                if is_last && state.untold && state.fell {
                    state.tell_incarnation(0)?;
                }
                Err(PoolerError::PortalClosed)
            }
        }
    }

    /// Gives it something to do with the portal of that execution, as a part of it.
    pub(crate) fn use_portal(&self, execution: ExecutionId, work: Work) -> Result<Needs, PoolerError> {
        let mut state = self.state.lock();
        state.alive()?;
        if state.busy.is_some() {
            return Err(PoolerError::SessionBusy);
        }
        if state.suspended.is_none_or(|portal| portal.execution != execution) {
            return Err(PoolerError::PortalClosed);
        }
        state.touch(self.clock.now());
        state.suspended = None;
        state.busy = Some(execution);
        self.control.reset();
        if let Some(record) = &mut state.record {
            record.end_time = None;
            record.outcome = ExecutionOutcome::Unspecified;
            self.control.set_rows(record.rows);
        }
        state.work = Some(work);
        Ok(self.call(state))
    }
}
