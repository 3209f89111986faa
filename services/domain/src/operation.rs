//! Background work: what kinds there are, how far a piece of it is, and how it ends.
//!
//! QUEUED → RUNNING → SUCCEEDED, FAILED or CANCELLED; RUNNING goes back to QUEUED where its worker was lost
//! and the work may be tried again. Invariant: what has ended does not change any more.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The reason of a failure whose worker stopped without a word.
pub const LOST: &str = "LOST";

/// A text that is none of the names that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the name is not known")]
pub struct UnknownName;

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// The name it is stored under.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(UnknownName),
                }
            }
        }
    };
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// A backup by pg_dump.
    Backup,
    /// A restore by pg_restore.
    Restore,
}

names!(OperationKind { Backup = "backup", Restore = "restore" });

/// Where a running operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationPhase {
    /// It waits for connections within the budget.
    WaitingForSlots,
    /// It reads from the server, or brings the artifact to the worker.
    Reading,
    /// It writes to the server or the object store.
    Writing,
    /// It checks and publishes what it made.
    Finishing,
}

names!(OperationPhase {
    WaitingForSlots = "waiting_for_slots",
    Reading = "reading",
    Writing = "writing",
    Finishing = "finishing",
});

/// How far an operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationProgress {
    /// Where it is; `None` before it begins.
    pub phase: Option<OperationPhase>,
    /// Bytes of the artifact written or read so far.
    pub bytes_done: u64,
    /// Bytes in all; `None` while unknown.
    pub bytes_total: Option<u64>,
    /// Objects dumped or restored so far.
    pub objects_done: u64,
    /// Objects in all; `None` while unknown.
    pub objects_total: Option<u64>,
}

/// Why an operation ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationFailure {
    /// A machine's reason, e.g. `TOOL_FAILED` or [`LOST`].
    pub reason: String,
    /// What happened, for a person; without secrets.
    pub message: String,
    /// The program's exit status, where one ran.
    pub exit_status: Option<i32>,
}

impl OperationFailure {
    /// The failure of an operation whose worker stopped without a word.
    #[must_use]
    pub fn lost() -> Self {
        let message = "the worker that carried it out stopped".to_owned();
        Self {
            reason: LOST.to_owned(),
            message,
            exit_status: None,
        }
    }
}

/// How an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationState {
    /// It waits for a worker.
    Queued,
    /// A worker carries it out.
    Running,
    /// It has ended.
    Ended(OperationOutcome),
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationOutcome {
    /// Well.
    Succeeded,
    /// Badly.
    Failed(OperationFailure),
    /// It was cancelled.
    Cancelled,
}

impl OperationState {
    /// True once it will not change any more.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_text_form() {
        for kind in [OperationKind::Backup, OperationKind::Restore] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for phase in [
            OperationPhase::WaitingForSlots,
            OperationPhase::Reading,
            OperationPhase::Writing,
            OperationPhase::Finishing,
        ] {
            assert_eq!(phase.to_string().parse(), Ok(phase));
        }
        assert_eq!("Backup".parse::<OperationKind>(), Err(UnknownName));
    }

    #[test]
    fn only_what_has_ended_is_done() {
        assert!(!OperationState::Queued.is_done() && !OperationState::Running.is_done());
        assert!(OperationState::Ended(OperationOutcome::Failed(OperationFailure::lost())).is_done());
    }
}
