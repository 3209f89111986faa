//! What an instance says about itself on a fresh connection, before its user's first statement.
//!
//! Every name is qualified: a database may have functions and operators of its own that look like the system's.

use std::sync::Arc;

use domain::name::Identifier;
use pgconn::{Connection, Event};
use time::OffsetDateTime;

use crate::error::TargetError;
use crate::history::{HISTORY, History};
use crate::look::Baseline;

const INSTANCE: &str = "SELECT pg_catalog.pg_backend_pid(), \
    pg_catalog.current_setting('server_version'), \
    pg_catalog.pg_is_in_recovery(), \
    pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::pg_catalog.numeric(20,6), \
    pg_catalog.current_setting('max_connections'), \
    pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'), \
    SESSION_USER, CURRENT_USER, \
    (SELECT pg_catalog.date_part('epoch', a.backend_start)::pg_catalog.numeric(20,6) \
     FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a), \
    (SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(f.function, 'EXECUTE')) FROM (VALUES \
        (pg_catalog.to_regprocedure('pg_catalog.pg_current_wal_lsn()')), \
        (pg_catalog.to_regprocedure('pg_catalog.pg_walfile_name(pg_catalog.pg_lsn)')), \
        (pg_catalog.to_regprocedure('pg_catalog.pg_stat_get_bgwriter_stat_reset_time()'))) AS f (function)), \
    pg_catalog.has_function_privilege( \
        pg_catalog.to_regprocedure('pg_catalog.pg_current_xact_id_if_assigned()'), 'EXECUTE'), \
    pg_catalog.has_function_privilege( \
        pg_catalog.to_regprocedure('pg_catalog.txid_current_if_assigned()'), 'EXECUTE')";
const SYSTEM_IDENTIFIER: &str = "SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c";
const ROLE: &str = "SELECT r.rolname, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication, \
    r.rolbypassrls, r.rolconnlimit, pg_catalog.pg_has_role(r.oid, 'pg_monitor', 'MEMBER') \
    FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER";

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InstanceFacts {
    /// The version as the server states it.
    pub(crate) server_version: String,
    /// True for a standby.
    pub(crate) in_recovery: bool,
    /// The cluster's identity, where the role may read it.
    pub(crate) system_identifier: Option<String>,
    /// When its postmaster started.
    pub(crate) postmaster_start_time: OffsetDateTime,
    /// Its own limit of connections.
    pub(crate) max_connections: i32,
    /// The backend is not the one the connection was promised.
    pub(crate) is_pooler: bool,
    /// Who the connection is.
    pub(crate) baseline: Baseline,
    /// When the server took the connection: `pg_stat_activity.backend_start`.
    pub(crate) backend_start: OffsetDateTime,
    /// What it may be asked before a COMMIT.
    pub(crate) xact_facts: XactFacts,
}

/// What a connection may ask about its transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct XactFacts {
    /// The function that tells a transaction's id, where the role may execute one.
    pub(crate) xid_function: Option<&'static str>,
    /// True where the role may read the server's history.
    pub(crate) reads_history: bool,
    /// The history; nothing on a standby.
    pub(crate) history: Option<Arc<History>>,
    /// The database it was connected to; nothing where that is not known.
    pub(crate) database: Option<Arc<Identifier>>,
}

/// What the role of a connection may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RoleFacts {
    pub(crate) name: String,
    pub(crate) superuser: bool,
    pub(crate) create_database: bool,
    pub(crate) create_role: bool,
    pub(crate) replication: bool,
    pub(crate) bypass_row_security: bool,
    pub(crate) connection_limit: i32,
    pub(crate) monitor: bool,
}

/// Asks the instance.
pub(crate) async fn instance(connection: &mut Connection) -> Result<InstanceFacts, TargetError> {
    let row = one_row(connection, INSTANCE, drop).await?;
    let reads_history = truth(&row, 5) && truth(&row, 9);
    let identity = match (truth(&row, 5), reads_history) {
        (true, true) => one_row(connection, HISTORY, drop).await?,
        (true, false) => one_row(connection, SYSTEM_IDENTIFIER, drop).await?,
        (false, _) => Vec::new(),
    };
    let xid_function = match (truth(&row, 10), truth(&row, 11)) {
        (true, _) => Some("pg_current_xact_id_if_assigned"),
        // PostgreSQL 12 and older.
        (false, true) => Some("txid_current_if_assigned"),
        (false, false) => None,
    };
    Ok(InstanceFacts {
        is_pooler: connection
            .process_id()
            .is_none_or(|pid| text(&row, 0) != pid.to_string()),
        server_version: text(&row, 1).to_owned(),
        in_recovery: truth(&row, 2),
        system_identifier: identity.first().cloned(),
        postmaster_start_time: start_time(text(&row, 3)),
        max_connections: text(&row, 4).parse().unwrap_or_default(),
        baseline: Baseline {
            session_user: text(&row, 6).to_owned(),
            current_user: text(&row, 7).to_owned(),
        },
        backend_start: start_time(text(&row, 8)),
        xact_facts: XactFacts {
            xid_function,
            reads_history,
            history: History::read(&identity).map(Arc::new),
            database: None,
        },
    })
}

/// Asks about the role that is logged in.
pub(crate) async fn role(connection: &mut Connection) -> Result<RoleFacts, TargetError> {
    let row = one_row(connection, ROLE, drop).await?;
    Ok(RoleFacts {
        name: text(&row, 0).to_owned(),
        superuser: truth(&row, 1),
        create_database: truth(&row, 2),
        create_role: truth(&row, 3),
        replication: truth(&row, 4),
        bypass_row_security: truth(&row, 5),
        connection_limit: text(&row, 6).parse().unwrap_or(-1),
        monitor: truth(&row, 7),
    })
}

pub(crate) fn text(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

pub(crate) fn truth(row: &[String], column: usize) -> bool {
    text(row, column) == "t"
}

/// Seconds since 1970 as a point in time; 1970 where they are not, or beyond all time.
fn start_time(seconds: &str) -> OffsetDateTime {
    let seconds: f64 = seconds.parse().unwrap_or_default();
    let since = time::Duration::microseconds((seconds * 1e6).round() as i64);
    OffsetDateTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Runs a query of ours and returns its only row, as text. What the server says besides is handed to `overheard`.
pub(crate) async fn one_row(
    connection: &mut Connection,
    sql: &str,
    mut overheard: impl FnMut(Event),
) -> Result<Vec<String>, TargetError> {
    let lost = |error: &dyn std::fmt::Display| TargetError::Unreachable {
        reason: error.to_string(),
    };
    connection.query(sql).map_err(|error| lost(&error))?;
    let mut row = None;
    let mut refusal = None;
    loop {
        match connection.next().await.map_err(|error| lost(&error))? {
            Event::DataRow(body) => {
                let values: Result<Vec<String>, _> = body
                    .values()
                    .map(|value| {
                        value.map(|bytes| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned())
                    })
                    .collect();
                row = Some(values.map_err(|error| lost(&error))?);
            }
            Event::Error(error) => {
                refusal = Some(TargetError::Refused {
                    sqlstate: error.sqlstate.to_string(),
                    message: error.message.to_string(),
                });
            }
            Event::ReadyForQuery(_) => break,
            event => overheard(event),
        }
    }
    match (row, refusal) {
        (_, Some(refusal)) => Err(refusal),
        (Some(row), None) => Ok(row),
        (None, None) => Err(lost(&"the server answered a question with nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_may_claim_any_start_time() {
        assert_eq!(start_time("1.5").unix_timestamp_nanos(), 1_500_000_000);
        for absurd in ["1e300", "-1e300", "NaN", "inf", ""] {
            assert_eq!(start_time(absurd), OffsetDateTime::UNIX_EPOCH, "{absurd}");
        }
    }
}
