//! The processes that write the audit trail: each has a chain of its own, and a secret that nobody else can add to it with.

use std::fmt;

use domain::id::IncarnationId;
use domain::random::{self, Random};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::WriterRole;
use crate::error::{Inconsistency, StoreError};

/// What a process shows to add to its chain. It lives as long as the process and is kept nowhere; the config database has
/// its hash.
#[derive(Clone)]
pub struct WriterSecret([u8; 32]);

impl WriterSecret {
    /// A new one.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        Self(random::bytes::<32>(random))
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WriterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterSecret").finish_non_exhaustive()
    }
}

/// A writer as the config database entered it with its first records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The role of the process, by what it logged in as.
    pub role: WriterRole,
    /// What it logged in as; empty for one that wrote before writers were entered.
    pub login: String,
    /// When its first records arrived.
    pub begin_time: OffsetDateTime,
}

pub(super) async fn find(
    connection: &mut PgConnection,
    id: IncarnationId,
) -> Result<Option<Writer>, StoreError> {
    let row: Option<(String, String, OffsetDateTime)> =
        sqlx::query_as("SELECT writer_role, login, begin_time FROM pgmoor.audit_writers WHERE writer = $1")
            .bind(id.as_uuid())
            .fetch_optional(connection)
            .await?;
    let Some((role, login, begin_time)) = row else {
        return Ok(None);
    };
    let wrong = || Inconsistency::new("audit_writers", "writer_role", id);
    Ok(Some(Writer {
        role: WriterRole::parse(&role).ok_or_else(wrong)?,
        login,
        begin_time,
    }))
}
