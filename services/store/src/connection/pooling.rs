//! Recognising a pooler in front of the config database that does not keep a session on one backend.
//!
//! Two connections are opened, one after the other, and asked for their backend while both are alive. To
//! PostgreSQL itself, and through PgBouncer in session mode, they are two backends. In transaction or
//! statement mode the first connection's backend goes back to the pooler after its statement, and the second
//! connection gets it, most recently used first; or, under load, a connection changes its backend between two
//! statements; or a transaction block is refused. What this cannot see: a pooler that happens to give out two
//! backends every time. Session state (`SET`, advisory locks of migrations, prepared statements) needs the
//! session, so what slips through shows as errors rather than as wrong data.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::ConnectError;
use crate::error::{StoreError, Unavailable};

/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// How often the question is asked: other clients of a pooler come in between.
const ROUNDS: usize = 3;
/// A backend for as long as its server lives. Two hosts behind one name may both have a backend of the same
/// pid.
const WHO: &str = "SELECT pg_backend_pid()::text || '@' || pg_postmaster_start_time()::text";
/// What PgBouncer answers to BEGIN when it pools statements.
const STATEMENT_POOLING: &str = "08P01";

/// Fails with [`ConnectError::TransactionPooling`] where sessions do not keep their backend.
pub(super) async fn refuse_transaction_pooling(options: &PgConnectOptions) -> Result<(), ConnectError> {
    match timeout(DEADLINE, backends_are_shared(options)).await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(ConnectError::TransactionPooling),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(StoreError::from(Unavailable::AcquireTimeout).into()),
    }
}

async fn backends_are_shared(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut first = options.connect().await?;
    let mut second = options.connect().await?;
    let home = backend(&mut first).await?;
    let mut shared = false;
    for _ in 0..ROUNDS {
        match sqlx::raw_sql("BEGIN").execute(&mut second).await {
            Ok(_) => {}
            Err(error)
                if error.as_database_error().and_then(|e| e.code()).as_deref() == Some(STATEMENT_POOLING) =>
            {
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        let other = backend(&mut second).await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut second).await?;
        shared |= other == home || backend(&mut first).await? != home;
    }
    // A goodbye that fails changes nothing.
    let _ = first.close().await;
    let _ = second.close().await;
    Ok(shared)
}

async fn backend(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(WHO).fetch_one(connection).await?.try_get(0)
}
