//! What a session is given to do.

use std::time::Duration;

use domain::access::GrantLimits;
use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecutionEvent, Heartbeat};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Audience, CopySource, Detaching, Ended, PipeWriter, Plan};
use crate::audited::Audited;
use crate::error::PoolerError;

/// Something for a session to do.
pub(crate) enum Work {
    /// A script whose events somebody reads.
    Script {
        plan: Plan,
        output: PipeWriter,
        detaching: Detaching,
        audited: Audited,
    },
    /// A statement of which only the end matters.
    Quiet {
        plan: Plan,
        copy: CopySource,
        reply: oneshot::Sender<Result<Ended, PoolerError>>,
        audited: Audited,
    },
}

impl Work {
    /// Gives it up with an error.
    pub(super) fn fail(self, error: PoolerError) {
        match self {
            Self::Script { output, audited, .. } => {
                audited.refused(&error);
                output.fail(error.into());
            }
            // Who waits learns it from what is dropped, or in detail from here.
            Self::Quiet { reply, audited, .. } => {
                audited.refused(&error);
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Ends it before it began.
    pub(super) fn end_early(self, ended: Ended) {
        match self {
            Self::Script { output, audited, .. } => {
                audited.finish(&ended);
                ended.into_events(output).send();
            }
            Self::Quiet { reply, audited, .. } => {
                audited.finish(&ended);
                let _ = reply.send(Ok(ended));
            }
        }
    }

    /// Tells whoever reads that it still waits for a backend.
    pub(super) fn waits(&mut self, position: Option<usize>) {
        let Self::Script { output, .. } = self else { return };
        if output.has_room() {
            let heartbeat = Heartbeat {
                elapsed: None,
                queue_position: position.map_or(0, |position| i32::try_from(position).unwrap_or(i32::MAX)),
            };
            let event = ExecutionEvent {
                sequence: 0,
                kind: Some(Kind::Heartbeat(heartbeat)),
            };
            output.push(EncodedEvents::encode(vec![event]), 0);
        }
    }

    /// Keeps it within what the instance allows statements and transactions, of which one may be open since then.
    pub(super) fn limit(
        &mut self,
        statement: Option<Duration>,
        transaction: Option<Duration>,
        since: Option<Instant>,
    ) {
        let (Self::Script { plan, .. } | Self::Quiet { plan, .. }) = self;
        plan.statement_timeout = plan.statement_timeout.into_iter().chain(statement).min();
        plan.transaction_timeout = transaction;
        plan.transaction_since = since;
    }

    /// Keeps its results within what a grant allows.
    pub(super) fn narrow(&mut self, limits: &GrantLimits) {
        let (Self::Script { plan, .. } | Self::Quiet { plan, .. }) = self;
        plan.narrow(limits);
    }

    /// Those without whom it is not to go on.
    pub(crate) fn audience(&self) -> Option<Audience> {
        match self {
            Self::Script {
                output,
                detaching: Detaching::Cancel { grace },
                ..
            } => Some(output.audience(*grace)),
            Self::Script { .. } | Self::Quiet { .. } => None,
        }
    }
}
