//! What can go wrong with a call, by cause. Which status a client sees is decided in [`crate::status`].

use std::fmt;
use std::time::Duration;

use auth::AuthError;
use domain::credential::NoCredential;
use domain::egress::EgressDenied;
use domain::pin::Pins;
use domain::session::{ExecutionName, PoolerId};
use rpc::query::v1::TransactionStatus;
use thiserror::Error;
use uuid::Uuid;

use crate::slots::SlotRefused;

/// Why a session is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// It was not used for too long.
    IdleTimeout,
    /// It was left idle in a transaction for too long.
    IdleInTransactionTimeout,
    /// PostgreSQL ended the connection, or the connection broke.
    BackendTerminated,
    /// Its owner closed it.
    Closed,
    /// An administrator ended it.
    Killed,
    /// The pooler was shut down.
    Drained,
    /// A cancel request may still have been under way, which nothing else could be risked with.
    CancelUnsettled,
    /// A transaction was open for longer than the instance allows.
    TransactionTimeout,
    /// It was idle for too long while something pinned it.
    PinnedIdleTimeout,
    /// The server was deleted, or is registered otherwise than when the session was opened.
    ServerChanged,
    /// The pooler that held it is gone.
    PoolerLost,
    /// What let its owner use the server is gone: a grant, a role, or the owner's own account.
    AccessRevoked,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub cause: LossCause,
    /// What held it on its backend, and is lost.
    pub pins: Pins,
}

impl LossCause {
    /// The cause as it stands in the metadata of `SESSION_STATE_LOST`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::IdleInTransactionTimeout => "idle_in_transaction_timeout",
            Self::BackendTerminated => "backend_terminated",
            Self::Closed => "closed",
            Self::Killed => "killed",
            Self::Drained => "drained",
            Self::CancelUnsettled => "cancel_unsettled",
            Self::TransactionTimeout => "transaction_timeout",
            Self::PinnedIdleTimeout => "pinned_idle_timeout",
            Self::ServerChanged => "server_changed",
            Self::PoolerLost => "pooler_lost",
            Self::AccessRevoked => "access_revoked",
        }
    }
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum PoolerError {
    /// A field of the request is wrong.
    #[error("{field}: {description}")]
    InvalidField {
        /// Its path in the request.
        field: &'static str,
        /// What is wrong with it.
        description: String,
    },
    /// There is no such resource, or the caller may not know of it.
    #[error("{resource} was not found")]
    NotFound {
        /// The name asked for.
        resource: String,
    },
    /// Neither the server's policy nor a grant has the database.
    #[error("the database {database} may not be used on this server")]
    DatabaseNotAllowed {
        /// The database.
        database: String,
    },
    /// The session ended with everything it held.
    #[error("the session is gone: {}", _0.cause)]
    StateLost(Loss),
    /// The session runs another execution.
    #[error("the session runs another execution")]
    SessionBusy,
    /// The session was recovered, and the caller does not know it yet.
    #[error("the session was recovered and is at incarnation {current}")]
    SessionRecovered {
        /// The session's incarnation.
        current: i64,
    },
    /// The elevation ended by which the session might write, and what held it on its backend is lost.
    #[error("the elevation ended: the transaction was rolled back, and the session goes on read-only")]
    ElevationEnded {
        /// The session's incarnation.
        current: i64,
    },
    /// The execution has ended.
    #[error("the execution has ended")]
    ExecutionFinished,
    /// The backend was lost with a COMMIT under way.
    #[error(
        "the connection to the server was lost with a COMMIT under way; GetExecution tells what became of it"
    )]
    OutcomeUnknown {
        /// What sent it.
        execution: ExecutionName,
    },
    /// The session is read-only.
    #[error("the session is read-only, and COPY FROM STDIN writes")]
    SessionReadOnly,
    /// The execution has no portal to go on with.
    #[error("the execution is not suspended")]
    PortalClosed,
    /// The execution was cancelled before it did anything.
    #[error("cancelled before anything was done")]
    ExecutionCancelled,
    /// The session's transaction does not allow this.
    #[error("the transaction is {}, which does not allow this", transaction_name(*status))]
    TransactionState {
        /// How it stands.
        status: TransactionStatus,
    },
    /// The user has as many sessions on the instance as may be.
    #[error("you have {limit} sessions on this instance, which is the most there may be; close some")]
    TooManySessions {
        /// How many there may be.
        limit: usize,
    },
    /// No connection within the budget.
    #[error(transparent)]
    Slot(#[from] SlotRefused),
    /// Connecting to this address is not allowed.
    #[error(transparent)]
    Egress(#[from] EgressDenied),
    /// No connection to the target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The registration has no password for its destination.
    #[error("no password is stored for this destination")]
    CredentialMissing,
    /// The server is used with personal credentials only.
    #[error("the server is used with personal credentials only, and you have none there")]
    PersonalCredentialMissing,
    /// Another pooler owns the instance, or is about to.
    #[error("another pooler serves this")]
    Moved {
        /// Which, where that is known.
        owner: Option<PoolerId>,
    },
    /// The pooler that held the session does not answer, and is not known to be gone.
    #[error("the pooler that held the session does not answer; it is not yet known to be gone")]
    HolderSilent,
    /// What an execution said is not kept any more.
    #[error("what the execution said is not kept any more")]
    ResultExpired,
    /// Somebody else reads what the execution says.
    #[error("another reader took this one's place")]
    ReaderReplaced,
    /// The execution must be recorded, and the audit trail has no room.
    #[error(transparent)]
    Audit(#[from] audit::Unavailable),
    /// This pooler is shutting down.
    #[error("this pooler is shutting down")]
    ShuttingDown,
    /// The config database cannot be asked.
    #[error("the config database cannot be reached")]
    ConfigDatabase,
    /// The call's token is not accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// What was asked for does not exist yet.
    #[error("{field} is not supported yet")]
    NotSupported {
        /// The field that asks for it.
        field: &'static str,
    },
    /// A fault of ours; the log has the rest.
    #[error("internal error {error_id}")]
    Internal {
        /// Under which the log has it.
        error_id: Uuid,
    },
}

impl From<NoCredential> for PoolerError {
    fn from(why: NoCredential) -> Self {
        match why {
            NoCredential::Missing => Self::CredentialMissing,
            NoCredential::PersonalMissing => Self::PersonalCredentialMissing,
        }
    }
}

impl TargetError {
    /// True where no user of the server would fare better.
    pub(crate) fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TooManyClients { .. })
    }
}

/// Why there is no connection to the target.
#[derive(Debug, Clone, Error)]
pub enum TargetError {
    /// Nobody answers, or the name does not resolve.
    #[error("the server cannot be reached: {reason}")]
    Unreachable {
        /// What was tried.
        reason: String,
    },
    /// The server refuses user or password.
    #[error("the server refused the user or the password")]
    Authentication {
        /// What the server said, or which method was asked for.
        reason: String,
    },
    /// The server has too many clients.
    #[error("the server has too many clients")]
    TooManyClients {
        /// When it may be worth another try.
        retry_after: Duration,
    },
    /// The server refuses for another reason.
    #[error("the server refused the connection: {message}")]
    Refused {
        /// The SQLSTATE.
        sqlstate: String,
        /// The server's message.
        message: String,
    },
    /// TLS failed or is not offered.
    #[error("TLS failed: {reason}")]
    Tls {
        /// How.
        reason: String,
    },
    /// It is a pooler, which cannot keep a session.
    #[error("the address is a connection pooler")]
    IsPooler,
}

/// How a transaction stands, in words.
#[must_use]
pub fn transaction_name(status: TransactionStatus) -> &'static str {
    match status {
        TransactionStatus::Idle => "idle",
        TransactionStatus::InTransaction => "open",
        TransactionStatus::Failed => "failed",
        TransactionStatus::Unspecified => "unknown",
    }
}
