//! Finding the host that takes writes.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Address, Host};
use super::{ConnectError, pooling};
use crate::error::{Reports, StoreError, Unavailable};

/// How long one host may take to answer.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the others may still answer after the first one said that it takes writes. An old primary that
/// came back may say so too: the higher timeline wins (PostgreSQL manual, 26.3.6).
const GRACE: Duration = Duration::from_millis(100);
/// The least `server_version_num`.
const LEAST_VERSION: i32 = 140_000;

const QUESTION: &str = "\
    SELECT pg_is_in_recovery() AS standby, \
           current_setting('transaction_read_only')::bool AS read_only, \
           CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS \
           timeline, \
           current_setting('server_version_num')::int AS version, \
           current_setting('server_version') AS version_text";

/// The host that takes writes, and the timeline on which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) host: Host,
    timeline: String,
}

enum Answer {
    Primary(Found),
    Standby,
    ReadOnly,
    TooOld(String),
}

/// Asks all hosts at once.
pub(crate) async fn find_primary(address: &Address, application_name: &str) -> Result<Found, ConnectError> {
    let mut asked: FuturesUnordered<_> = address
        .hosts()
        .iter()
        .map(|host| async move {
            let answer = timeout(PROBE_DEADLINE, ask(host, address.options(host, application_name))).await;
            (host, answer)
        })
        .collect();
    let mut best: Option<Found> = None;
    let mut reports = Vec::new();
    let mut too_old = None;
    let mut full = None;
    let mut end = Instant::now() + PROBE_DEADLINE + GRACE;
    while let Ok(Some((host, answer))) = timeout_at(end, asked.next()).await {
        let report = match answer {
            Ok(Ok(Answer::Primary(found))) => {
                if best.as_ref().is_none_or(|best| best.timeline < found.timeline) {
                    best = Some(found);
                }
                end = end.min(Instant::now() + GRACE);
                continue;
            }
            Ok(Ok(Answer::Standby)) => "a standby".to_owned(),
            Ok(Ok(Answer::ReadOnly)) => "read-only".to_owned(),
            Ok(Ok(Answer::TooOld(version))) => {
                let report = format!("PostgreSQL {version}");
                too_old = Some(version);
                report
            }
            Ok(Err(error)) => {
                let report = error.to_string();
                if is_full(&error) {
                    full = Some(error);
                }
                report
            }
            Err(_) => "no answer".to_owned(),
        };
        reports.push((host.to_string(), report));
    }
    match (best, full, too_old) {
        (Some(found), _, _) => {
            pooling::refuse_transaction_pooling(&address.options(&found.host, application_name)).await?;
            Ok(found)
        }
        (None, Some(error), _) => Err(error.into()),
        (None, None, Some(found)) => Err(ConnectError::TooOld { found }),
        (None, None, None) => Err(StoreError::from(Unavailable::NoPrimary(Reports(reports))).into()),
    }
}

/// True where the host lives but lets nobody else in: that says nothing about who is the primary.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .as_deref()
        == Some("53300")
}

async fn ask(host: &Host, options: PgConnectOptions) -> Result<Answer, sqlx::Error> {
    let mut connection = options.connect().await?;
    let row = sqlx::raw_sql(QUESTION).fetch_one(&mut connection).await?;
    // A goodbye that fails changes nothing.
    let _ = connection.close().await;
    let timeline: Option<String> = row.try_get("timeline")?;
    Ok(match timeline {
        _ if row.try_get::<i32, _>("version")? < LEAST_VERSION => {
            Answer::TooOld(row.try_get("version_text")?)
        }
        _ if row.try_get("standby")? => Answer::Standby,
        _ if row.try_get("read_only")? => Answer::ReadOnly,
        Some(timeline) => Answer::Primary(Found {
            host: host.clone(),
            timeline,
        }),
        None => Answer::Standby,
    })
}
