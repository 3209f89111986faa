//! What can go wrong with the config database, by cause.
//!
//! Every method returns either [`StoreError`] or an enum of its own with a `Store` variant. Constraint
//! violations that a caller can act on are recognised by the constraint's name before anything else is looked
//! at.

use std::fmt;

use sqlx::error::DatabaseError;
use thiserror::Error;

/// A failure that has nothing to do with what was asked for.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The config database cannot be reached, is shutting down, or takes no writes. Try again later. If the
    /// connection broke while a transaction was being committed, the change may have been made.
    #[error("the config database is not available: {0}")]
    Unavailable(#[from] Unavailable),
    /// PostgreSQL aborted the transaction (serialization failure, deadlock). It certainly did nothing: try
    /// again.
    #[error("the config database aborted the transaction")]
    Aborted(#[source] sqlx::Error),
    /// A statement or a lock took longer than allowed. The transaction certainly did nothing.
    #[error("the config database did not answer in time")]
    TimedOut(#[source] sqlx::Error),
    /// The role pgmoor logs in as lacks a privilege: it is not a member of the group role of this process's
    /// role.
    #[error("the role of the config database url lacks a privilege: {0}")]
    PrivilegeMissing(#[source] sqlx::Error),
    /// A row cannot be what this program wrote.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistency),
    /// A cursor is not one of this listing.
    #[error("the cursor does not belong to this listing")]
    InvalidCursor,
    /// Anything else: a defect, or a database somebody changed by hand.
    #[error("the config database refused a statement: {0}")]
    Unexpected(#[source] sqlx::Error),
}

/// Why the config database is not available.
#[derive(Debug, Error)]
pub enum Unavailable {
    /// None of the hosts takes writes.
    #[error("no host takes writes ({0})")]
    NoPrimary(Reports),
    /// No connection was free or could be made in time.
    #[error("no connection within the deadline")]
    AcquireTimeout,
    /// The server takes no writes any more: it became a standby (SQLSTATE 25006).
    #[error("the server became read-only")]
    ReadOnly(#[source] sqlx::Error),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Connection(#[source] sqlx::Error),
}

/// What each host answered when it was asked whether it takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reports(pub(crate) Vec<(String, String)>);

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, answer)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{host}: {answer}")?;
        }
        Ok(())
    }
}

/// A row whose columns contradict each other or hold a value this program never writes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("row {row} of pgmoor.{table} is inconsistent in column {column}")]
pub struct Inconsistency {
    /// The table, without its schema.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The row's key.
    pub row: String,
}

impl Inconsistency {
    pub(crate) fn new(table: &'static str, column: &'static str, row: impl ToString) -> Self {
        Self {
            table,
            column,
            row: row.to_string(),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        match (code.as_deref(), &error) {
            (Some("25006"), _) => Unavailable::ReadOnly(error).into(),
            (Some("40001" | "40P01"), _) => Self::Aborted(error),
            (Some("57014" | "55P03"), _) => Self::TimedOut(error),
            (Some("42501"), _) => Self::PrivilegeMissing(error),
            // Shutting down or starting up, too many connections, connection exceptions.
            (Some(code), _) if code.starts_with("57P0") || code.starts_with("08") || code == "53300" => {
                Unavailable::Connection(error).into()
            }
            (None, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => Unavailable::AcquireTimeout.into(),
            (None, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed) => {
                Unavailable::Connection(error).into()
            }
            _ => Self::Unexpected(error),
        }
    }
}

/// The name of the constraint a statement violated.
pub(crate) fn violated_constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(DatabaseError::constraint)
}

/// How often something is written again that met the merge of its instance into another one.
const ATTEMPTS: usize = 3;

/// Counts the attempts to write something that belongs to an instance. Where that turns out to be another one between the look
/// for it and the check of the foreign key, the next attempt finds the other one.
#[derive(Debug, Default)]
pub(crate) struct PastMerges(usize);

impl PastMerges {
    /// Whether it is worth another attempt.
    pub(crate) fn again(&mut self, error: &sqlx::Error, constraint: &str) -> bool {
        self.0 += 1;
        self.0 < ATTEMPTS && violated_constraint(error) == Some(constraint)
    }
}

/// Lets `?` turn a driver's error into these enums' `Store` variant.
macro_rules! store_variant {
    ($($error:ty),+ $(,)?) => {$(
        impl From<sqlx::Error> for $error {
            fn from(error: sqlx::Error) -> Self {
                Self::Store(error.into())
            }
        }

        impl From<$crate::error::Inconsistency> for $error {
            fn from(error: $crate::error::Inconsistency) -> Self {
                Self::Store(error.into())
            }
        }
    )+};
}
pub(crate) use store_variant;
