//! What pgmoor asks of a target, one method per question.
//!
//! Invariant: the text of every statement is in this file; what a caller gives is a bound parameter.

use std::time::Duration;

use deadpool_postgres::Object;
use domain::name::Identifier;
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// How often it is looked whether ended backends are gone.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum QuestionError {
    /// The statement failed, or the connection did.
    #[error("a question of pgmoor's own to the server failed")]
    Failed(#[from] tokio_postgres::Error),
    /// Backends that were told to end are still there.
    #[error("{remaining} backends did not end within {waited:?}")]
    StillRunning {
        /// How many.
        remaining: i64,
        /// How long they had.
        waited: Duration,
    },
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The version as a number: 150018 for 15.18.
    pub version_number: i32,
    /// The version as text.
    pub version: String,
    /// True for a standby, which takes no writes.
    pub in_recovery: bool,
}

impl ServerFacts {
    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        u32::try_from(self.version_number / 10_000).unwrap_or(0)
    }
}

/// A connection to ask questions on. Dropping it gives it back to its pool.
pub struct Questions(Object);

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questions").finish_non_exhaustive()
    }
}

impl Questions {
    pub(crate) const fn new(connection: Object) -> Self {
        Self(connection)
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn facts(&self) -> Result<ServerFacts, QuestionError> {
        let row = self
            .0
            .query_one(
                "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
                        pg_catalog.pg_is_in_recovery()",
                &[],
            )
            .await?;
        Ok(ServerFacts {
            version_number: row.try_get(0)?,
            version: row.try_get(1)?,
            in_recovery: row.try_get(2)?,
        })
    }

    /// How many tables with rows of their own there are in `schemas`: what pg_dump reports one by one.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn count_tables(&self, schemas: &[Identifier]) -> Result<u64, QuestionError> {
        let schemas: Vec<&str> = schemas.iter().map(Identifier::as_str).collect();
        let row = self
            .0
            .query_one(
                "SELECT count(*) FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'r' AND n.nspname = ANY ($1)",
                &[&schemas],
            )
            .await?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    /// How many backends of this role, other than the one that asks, bear this application name.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn count_backends(&self, application_name: &str) -> Result<i64, QuestionError> {
        let row = self
            .0
            .query_one(
                "SELECT count(*) FROM pg_catalog.pg_stat_activity \
                 WHERE application_name = $1 AND usename = SESSION_USER AND backend_type = 'client backend' \
                   AND pid <> pg_catalog.pg_backend_pid()",
                &[&application_name],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Ends the backends of this role that bear this application name, and waits until they are gone. What they were doing
    /// is rolled back. A name as unguessable as an operation's is needed: anybody may give any name to a session.
    ///
    /// # Errors
    /// Where the server does not answer, or one is still there after `deadline`.
    pub async fn end_backends(
        &self,
        application_name: &str,
        deadline: Duration,
    ) -> Result<u64, QuestionError> {
        let end = Instant::now() + deadline;
        let mut ended = 0;
        loop {
            let row = self
                .0
                .query_one(
                    "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity \
                     WHERE application_name = $1 AND usename = SESSION_USER AND backend_type = 'client backend' \
                       AND pid <> pg_catalog.pg_backend_pid()",
                    &[&application_name],
                )
                .await?;
            let remaining: i64 = row.try_get(0)?;
            ended = ended.max(u64::try_from(remaining).unwrap_or(0));
            if remaining == 0 {
                return Ok(ended);
            }
            if Instant::now() >= end {
                return Err(QuestionError::StillRunning {
                    remaining,
                    waited: deadline,
                });
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}
