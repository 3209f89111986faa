//! Looks at what a backend holds for its session, and resets it.
//!
//! Every name is qualified: a database may have functions and operators of its own that look like the system's.

use std::time::Duration;

use domain::pin::{Pin, Pins};
use pgconn::{Connection, Event, TransactionStatus};
use thiserror::Error;
use tokio::time::timeout;

use crate::error::TargetError;
use crate::facts::{one_row, text, truth};

/// How long a backend has for a look or a reset.
const WITHIN: Duration = Duration::from_secs(5);

/// `transaction_read_only` begins anew with each transaction, whatever it is said to come from.
const LOOK: &str = "SELECT \
    EXISTS (SELECT FROM pg_catalog.pg_settings AS s WHERE s.source OPERATOR(pg_catalog.=) 'session' \
        AND s.name OPERATOR(pg_catalog.<>) 'transaction_read_only'), \
    SESSION_USER, CURRENT_USER, \
    pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND EXISTS ( \
        SELECT FROM pg_catalog.pg_depend AS d \
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
        AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()), \
    EXISTS (SELECT FROM pg_catalog.pg_locks AS l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
        AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.granted), \
    EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), \
    EXISTS (SELECT FROM pg_catalog.pg_cursors AS c WHERE c.is_holdable), \
    EXISTS (SELECT FROM pg_catalog.pg_prepared_statements AS p WHERE p.from_sql)";

/// Who a backend was when it was new.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Baseline {
    pub(crate) session_user: String,
    pub(crate) current_user: String,
}

/// Why a look or a reset came to nothing.
#[derive(Debug, Error)]
pub(crate) enum LookError {
    /// The server refused it; the connection is as it was.
    #[error("the server refused to say what a backend holds")]
    Refused,
    /// The backend is of no more use.
    #[error("the backend is gone or did not answer in time")]
    Lost,
}

/// Asks a backend outside a transaction what it holds. What it says besides is handed to `overheard`.
pub(crate) async fn look(
    connection: &mut Connection,
    baseline: &Baseline,
    overheard: impl FnMut(Event),
) -> Result<Pins, LookError> {
    let row = match timeout(WITHIN, one_row(connection, LOOK, overheard)).await {
        Ok(Ok(row)) => row,
        Ok(Err(TargetError::Refused { .. })) => return Err(LookError::Refused),
        Ok(Err(_)) | Err(_) => return Err(LookError::Lost),
    };
    let other_role = text(&row, 1) != baseline.session_user || text(&row, 2) != baseline.current_user;
    Ok(Pins::NONE
        .with_if(truth(&row, 0), Pin::Setting)
        .with_if(other_role, Pin::Role)
        .with_if(truth(&row, 3), Pin::TempTable)
        .with_if(truth(&row, 4), Pin::AdvisoryLock)
        .with_if(truth(&row, 5), Pin::Listen)
        .with_if(truth(&row, 6), Pin::HoldCursor)
        .with_if(truth(&row, 7), Pin::Prepared))
}

/// Resets a backend: `DISCARD ALL`, alone in its message as it must be (PostgreSQL manual, `DISCARD`). Only one that
/// says it did, is outside a transaction and has nothing more to say is as good as new.
pub(crate) async fn reset(connection: &mut Connection) -> Result<(), LookError> {
    match timeout(WITHIN, discard(connection)).await {
        Ok(Some(true)) if connection.is_quiet() && connection.poison().is_none() => Ok(()),
        Ok(Some(_)) => Err(LookError::Refused),
        Ok(None) | Err(_) => Err(LookError::Lost),
    }
}

/// Asks a backend that rested for long whether it still answers, by an empty query. PgBouncer's `server_check_query`.
pub(crate) async fn answers(connection: &mut Connection) -> bool {
    let asked = async {
        connection.query("").ok()?;
        loop {
            if let Event::ReadyForQuery(_) = connection.next().await.ok()? {
                return Some(());
            }
        }
    };
    matches!(timeout(WITHIN, asked).await, Ok(Some(())))
}

async fn discard(connection: &mut Connection) -> Option<bool> {
    connection.query("DISCARD ALL").ok()?;
    let mut discarded = false;
    loop {
        match connection.next().await.ok()? {
            Event::CommandComplete(tag) => discarded = tag == "DISCARD ALL",
            Event::Error(_) => discarded = false,
            Event::ReadyForQuery(status) => return Some(discarded && status == TransactionStatus::Idle),
            _ => {}
        }
    }
}
