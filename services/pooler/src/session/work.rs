//! What a session is given to do.

use std::time::Duration;

use rpc::query::v1::OnDisconnect;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Audience, CopySource, Ended, PipeWriter, Plan};
use crate::error::PoolerError;

/// Something for a session to do.
pub(crate) enum Work {
    /// A script whose events somebody reads.
    Script {
        plan: Plan,
        output: PipeWriter,
        on_disconnect: OnDisconnect,
    },
    /// A statement of which only the end matters.
    Quiet {
        plan: Plan,
        copy: CopySource,
        reply: oneshot::Sender<Result<Ended, PoolerError>>,
    },
}

impl Work {
    /// Gives it up with an error.
    pub(super) fn fail(self, error: PoolerError) {
        match self {
            Self::Script { output, .. } => output.fail(error.into()),
            // Who waits learns it from what is dropped, or in detail from here.
            Self::Quiet { reply, .. } => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Ends it before it began.
    pub(super) fn end_early(self, ended: Ended) {
        match self {
            Self::Script { output, .. } => ended.into_events(output).send(),
            Self::Quiet { reply, .. } => {
                let _ = reply.send(Ok(ended));
            }
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

    /// Those without whom it is not to go on.
    pub(crate) fn audience(&self) -> Option<Audience> {
        match self {
            Self::Script {
                output,
                on_disconnect,
                ..
            } if *on_disconnect != OnDisconnect::Continue => Some(output.audience()),
            Self::Script { .. } | Self::Quiet { .. } => None,
        }
    }
}
